"""Report: one self-contained HTML page of a comparison - verdict, table, learning curves, reward against KL, texts side by side."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from textgym.experiments.compare import CONTROL, Comparison
from textgym.experiments.statistics import Estimate
from textgym.html_page import COLOURS, image, write_page

N_TEXTS = 12


def write_report(comparison: Comparison, path: Path) -> None:
    """Write the page."""
    config = comparison.config
    gold = comparison.rows[0].gold is not None
    parts = [
        f"<h1>{html.escape(config.task)}: {html.escape(', '.join(a for a in comparison.results if a != CONTROL))}</h1>",
        f"<p>{config.seeds} seeds, {config.tokens:,} tokens each, judged on {config.test_prompts} held-out prompts that no agent learnt from, "
        "with the same random numbers for all.</p>",
        "<h2>Who is better?</h2><ul>",
        *(
            f"<li><b>{html.escape(p.verdict if p.difference.excludes_zero else f'{p.first} and {p.second}: not distinguishable')}</b> "
            f"(difference {p.difference}; a text of {html.escape(p.first)} beats one of {html.escape(p.second)} with probability "
            f"{p.probability})</li>"
            for p in comparison.pairs
        ),
        "</ul>",
        "<h2>Figures</h2><div class='wide'>",
        _table(comparison, gold),
        "</div><p class='note'>Reward"
        + (" and gold" if gold else "")
        + ": interquartile mean over seeds and prompts with its 95 % bootstrap "
        "interval (whole seeds and whole prompts resampled). Gain: mean difference to the untrained language model. KL: nats per token from "
        "the language model the agents started from; compare agents at equal KL. Perplexity is under that model."
        + (
            " Gold is an independent score that no agent saw: where the reward rises and it does not, the reward is being gamed."
            if gold
            else ""
        )
        + "</p>",
        "<h2>Learning curves</h2>",
        image(_curves(comparison, gold), "Reward and independent score on validation prompts against tokens"),
        "<p class='note'>Validation prompts; line: mean of the seeds, band: their range.</p>",
        "<h2>Reward against KL</h2>",
        image(_frontier(comparison), "Reward against KL"),
        "<p class='note'>One line per run, from the untrained model at KL 0; the dot is its end.</p>",
        "<h2>Texts, before and after</h2><div class='wide'>",
        _texts(comparison),
        "</div><p class='note'>Seed 0, the first held-out prompts, not selected. Number: task reward.</p>",
    ]
    write_page(path, f"textgym: {config.task}", parts)


def _table(comparison: Comparison, gold: bool) -> str:
    titles = [
        "agent",
        "reward",
        "gain",
        *(["gold", "gold gain"] if gold else []),
        "KL",
        "perplexity",
        "distinct-1",
        "distinct-2",
        "tokens",
        "ended",
        "tokens/s",
    ]
    lines = ["<tr>" + "".join(f"<th>{t}</th>" for t in titles) + "</tr>"]
    for row in comparison.rows:
        f = row.figures
        control = row.agent == CONTROL
        cells: list[str] = [html.escape(row.agent), str(row.reward), "" if control else str(row.gain)]
        if gold:
            cells += [_shown(row.gold), "" if control else _shown(row.gold_gain)]
        cells += [
            f"{f['kl']:.2f}".replace("-0.00", "0.00"),
            f"{f['perplexity']:.0f}",
            f"{f['distinct_1']:.2f}",
            f"{f['distinct_2']:.2f}",
            f"{f['length']:.1f}",
            f"{f['stopped']:.0%}",
        ]
        cells.append("" if control or "tokens_per_second" not in f else f"{f['tokens_per_second']:.0f}")
        lines.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def _curves(comparison: Comparison, gold: bool) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    for axis, key, title in zip(
        np.atleast_1d(figure.subplots(1, 1 + gold)), ["reward", "gold"], ["task reward", "independent score (gold)"], strict=False
    ):
        for colour, (agent, results) in zip(COLOURS, comparison.results.items(), strict=False):
            if agent == CONTROL:
                axis.axhline(np.mean([r["curve"][0][key] for r in results]), color="#999999", linestyle="--", label=agent)
                continue
            length = min(len(r["curve"]) for r in results)
            tokens = np.mean([[p["tokens"] for p in r["curve"][:length]] for r in results], axis=0)
            values = np.array([[p[key] for p in r["curve"][:length]] for r in results])
            axis.plot(tokens, values.mean(0), color=colour, label=agent, marker="o", markersize=3)
            axis.fill_between(tokens, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axis.set(xlabel="tokens generated in learning", ylabel=title)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    return figure


def _frontier(comparison: Comparison) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for colour, (agent, results) in zip(COLOURS, comparison.results.items(), strict=False):
        if agent == CONTROL:
            continue
        for i, result in enumerate(results):
            kl, reward = [p["kl"] for p in result["curve"]], [p["reward"] for p in result["curve"]]
            axis.plot(kl, reward, color=colour, alpha=0.6, label=agent if i == 0 else None)
            axis.plot(kl[-1:], reward[-1:], color=colour, marker="o")
    axis.set(xlabel="KL from the starting model, nats per token", ylabel="task reward (validation prompts)")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    return figure


def _texts(comparison: Comparison) -> str:
    order = [CONTROL, *(a for a in comparison.results if a != CONTROL)]
    lines = ["<tr>" + "".join(f"<th>{html.escape(a)}</th>" for a in order) + "</tr>"]
    for i in range(min(N_TEXTS, comparison.config.test_prompts)):
        cells = []
        for agent in order:
            result = comparison.results[agent][0]
            if i >= len(result["texts"]):
                continue
            prompt, continuation = result["texts"][i]
            cells.append(
                f"<td><span class='prompt'>{html.escape(prompt)}</span>{html.escape(continuation)}"
                f"<span class='score'>{result['rewards'][i]:+.2f}</span></td>"
            )
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "<table class='texts'>" + "".join(lines) + "</table>"
