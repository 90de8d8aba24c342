"""Report of a search: one self-contained HTML page - verdict, reward against trials and settings, table."""

import html
import math
from pathlib import Path
from typing import Any

import numpy as np

from textgym.experiments.tune import TrialRecord, Tuned
from textgym.html_page import COLOURS, image, table, write_page
from textgym.search_space import Range

N_COLUMNS = 3  # of small pictures


def write_report(outcome: Tuned, path: Path) -> None:
    """Write the page."""
    config = outcome.config
    parts = [
        f"<h1>{html.escape(config.agent)} on {html.escape(config.task)}: {len(outcome.trials)} trials</h1>",
        f"<p>{config.tokens:,} tokens a run, {config.seeds} {'seed' if config.seeds == 1 else 'seeds'} a trial, {outcome.tokens:,} tokens in all; "
        f"judged by the mean reward on {config.validation_prompts} validation prompts, KL at most {outcome.max_kl:g} nats per token.</p>",
        f"<p><code>{html.escape(config.command)}</code></p>",
        *_confirmation(outcome),
        "<h2>Trials</h2>",
        image(_history(outcome), "Validation reward of the trials in order, and the best so far"),
        "<p class='note'>Trial 0 has the defaults. Hollow: pruned, at its last evaluation (the table says why).</p>"
        if any(t.state == "pruned" for t in outcome.trials)
        else "<p class='note'>Trial 0 has the defaults.</p>",
        "<h2>Settings</h2>",
        image(_settings(outcome), "Validation reward against each setting"),
        "<h2>Table</h2>",
        table(["trial", "state", "reward", "KL", "tokens", *outcome.space, "why it ended"], [_cells(t, outcome) for t in outcome.trials]),
    ]
    write_page(path, f"textgym tune: {config.agent} on {config.task}", parts)


def _confirmation(outcome: Tuned) -> list[str]:
    found = outcome.confirmed
    if found is None:
        return ["<p>The defaults were best, or were not compared with the best.</p>"]
    gain = found["gain"]
    rows = [
        [name, *(", ".join(f"{v:.2f}" for v in found[name].get(figure, [])) for figure in ("reward", "gold", "kl", "distinct_2"))]
        for name in ("defaults", "tuned")
    ]
    return [
        "<h2>With fresh seeds</h2>",
        table(["settings", "reward", "gold", "KL", "distinct-2"], rows),
        f"<p class='note'>Seeds {', '.join(map(str, found['seeds']))}, validation prompts. Gain {gain['value']:.2f} "
        f"[{gain['low']:.2f}, {gain['high']:.2f}], paired by seed and prompt, 95 % bootstrap interval"
        + ("." if outcome.better else ": the defaults stay.")
        + "</p>",
    ]


def _cells(trial: TrialRecord, outcome: Tuned) -> list[str]:
    figures = ["" if figure is None else f"{figure:.3f}" for figure in (trial.reward, trial.kl)]
    return [
        f"{trial.number}{' (best)' if trial == outcome.best else ''}",
        trial.state,
        *figures,
        f"{trial.tokens:,}",
        *(str(trial.settings.get(name, "")) for name in outcome.space),
        trial.note,
    ]


def _history(outcome: Tuned) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    numbers, rewards = _complete(outcome)
    axis.step(numbers, np.maximum.accumulate(rewards), where="post", color=COLOURS[1], label="best so far")
    axis.plot(numbers, rewards, "o", color=COLOURS[0], label="complete")
    if pruned := [(t.number, t.last_reward) for t in outcome.trials if t.state == "pruned" and t.last_reward is not None]:
        axis.plot([n for n, _ in pruned], [r for _, r in pruned], "o", markerfacecolor="none", color=COLOURS[6], label="pruned")
    axis.set(xlabel="trial", ylabel="validation reward")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    return figure


def _complete(outcome: Tuned) -> tuple[list[int], list[float]]:
    """Return numbers and rewards of the trials that were run to their end."""
    found = [(t.number, t.reward) for t in outcome.trials if t.reward is not None]
    return [n for n, _ in found], [r for _, r in found]


def _settings(outcome: Tuned) -> Any:
    from matplotlib.figure import Figure

    rows = math.ceil(len(outcome.space) / N_COLUMNS)
    figure = Figure(figsize=(10, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, N_COLUMNS, squeeze=False).ravel()
    complete = [t for t in outcome.trials if t.reward is not None]
    for axis, (name, values) in zip(axes, outcome.space.items(), strict=False):
        tried = [t.settings[name] for t in complete]
        if isinstance(values, Range):
            axis.set_xscale("log" if values.log else "linear")
            margin = 1.1 if values.log else 0.05 * (values.high - values.low)
            axis.set_xlim(*((values.low / margin, values.high * margin) if values.log else (values.low - margin, values.high + margin)))
            if values.log:
                ticks = np.geomspace(values.low, values.high, 3)
                axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
                axis.set_xticks([], minor=True)
        else:  # in the order in which they are declared
            axis.set_xticks(range(len(values.values)), list(map(str, values.values)))
            tried = [values.values.index(value) for value in tried]
        axis.plot(tried, [t.reward for t in complete], "o", color=COLOURS[0])
        axis.set(xlabel=name, ylabel="validation reward")
        axis.grid(alpha=0.25)
    for axis in axes[len(outcome.space) :]:
        axis.set_visible(False)
    return figure
