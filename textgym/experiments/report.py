"""Report: one self-contained HTML page of a comparison - verdict, table, learning curves, reward against KL, texts side by side."""

import html
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from textgym.experiments.compare import CONTROL, MAX_PAIRS, Comparison
from textgym.experiments.doubts import doubts
from textgym.experiments.statistics import Estimate
from textgym.html_page import COLOURS, image, write_page

N_TEXTS = 12
MAX_BANDS = 7  # agents whose ranges can still be told apart in one picture
LINES = tuple(product(("-", "--", ":", "-."), COLOURS))  # style and colour of each agent


def write_report(comparison: Comparison, path: Path) -> None:
    """Write the page."""
    config = comparison.config
    gold = comparison.rows[0].gold is not None
    n_judged = len(next(iter(comparison.results.values()))[0]["rewards"])  # fewer than asked for, where the split has no more
    parts = [
        f"<h1>{html.escape(config.task)}: {html.escape(', '.join(a for a in comparison.results if a != CONTROL))}</h1>",
        f"<p>{config.seeds} seeds, {config.spending} each, judged on {n_judged} held-out prompts that no agent learnt from, "
        "with the same random numbers for all.</p>",
        f"<h2>Who is better?</h2><p class='note'>{len(comparison.pairs)} pairs are compared, each with a 95 % interval of its own: between agents that "
        "are equal, one pair in twenty may still be called different.</p>",
        *(_pair_list(comparison) if len(comparison.pairs) <= MAX_PAIRS else _pair_matrix(comparison)),
        *_doubts(comparison),
        *(_failures(comparison) if comparison.failures else []),
        "<h2>Figures</h2><div class='wide'>",
        _table(comparison, gold),
        "</div><p class='note'>Reward"
        + (" and gold" if gold else "")
        + ": interquartile mean over seeds and prompts with its 95 % bootstrap "
        "interval (whole seeds and whole prompts resampled, the seeds' part widened by Student's t). Gain: mean difference to the untrained language model. KL: nats per token from "
        "the language model the agents started from; compare agents at equal KL. Perplexity is under that model."
        + (
            " Gold is an independent score that no agent saw: where the reward rises and it does not, the reward is being gamed."
            if gold
            else ""
        )
        + "</p>",
        *(_labels(comparison) if any(row.accuracy is not None for row in comparison.rows) else []),
        "<h2>What learning cost</h2><div class='wide'>",
        _costs(comparison),
        "</div><p class='note'>Means of the seeds. Texts scored are those of learning, given texts included; scored per text is what the agent asks "
        "the reward for each text that it writes afterwards. Seconds are those of learning, evaluations left out; memory is the process's peak "
        "(on CUDA, the device's).</p>",
        "<h2>Learning curves</h2>",
        image(_curves(comparison, gold), "Reward and independent score on validation prompts against the budget"),
        f"<p class='note'>Validation prompts; line: mean of the seeds{', band: their range' * (len(comparison.results) <= MAX_BANDS)}.</p>",
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
        lines.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _pair_list(comparison: Comparison) -> list[str]:
    """Return one line per pair."""
    items = [
        f"<li><b>{html.escape(p.verdict if p.difference.excludes_zero else f'{p.first} and {p.second}: not distinguishable')}</b> "
        f"(difference {p.difference}; a text of {html.escape(p.first)} beats one of {html.escape(p.second)} with probability "
        f"{p.probability})</li>"
        for p in comparison.pairs
    ]
    return ["<ul>", *items, "</ul>"]


def _pair_matrix(comparison: Comparison) -> list[str]:
    """Return the differences of all pairs, row less column, the largest gain first; the lines of all pairs to be unfolded below."""
    order = [standing.agent for standing in comparison.standings]
    cells = {(agent, agent): "<td></td>" for agent in order}
    for p in comparison.pairs:
        title = html.escape(f"{p.first} - {p.second}: {p.difference}, {p.verdict}", quote=True)
        for one, other, sign in ((p.first, p.second, 1), (p.second, p.first, -1)):
            value = sign * p.difference.value
            kind = "" if not p.difference.excludes_zero else "better" if value > 0 else "worse"
            cells[one, other] = f"<td class='{kind}' title='{title}'>{value:+.2f}</td>"
    lines = ["<tr><th></th>" + "".join(f"<th>{html.escape(agent)}</th>" for agent in order) + "</tr>"]
    lines += [f"<tr><td>{html.escape(agent)}</td>" + "".join(cells[agent, other] for other in order) + "</tr>" for agent in order]
    note = "Mean difference, row less column: blue, the row is better; orange, worse; no colour, not distinguishable."
    return [
        f"<div class='wide'><table class='matrix'>{''.join(lines)}</table></div><p class='note'>{note}</p>",
        "<details><summary>Every pair, with its interval</summary>",
        *_pair_list(comparison),
        "</details>",
    ]


def _doubts(comparison: Comparison) -> list[str]:
    """Return the list of agents whose texts should be read before their scores are believed."""
    items = [f"<li><b>{html.escape(agent)}</b>: {html.escape(reason)}</li>" for agent, reason in doubts(comparison.rows).items()]
    note = "Strange to the language model, or much alike: a learnt reward may be gamed by such texts, and an independent score with it."
    return ["<h2>Read their texts first</h2><ul>", *items, f"</ul><p class='note'>{note}</p>"] if items else []


def _failures(comparison: Comparison) -> list[str]:
    """Return the list of runs that failed."""
    items = [f"<li>{html.escape(failure.run)}: {html.escape(failure.error)}</li>" for failure in comparison.failures]
    note = "Agents one of whose runs failed are not judged: their other seeds would flatter them."
    return ["<h2>Failed</h2><ul>", *items, f"</ul><p class='note'>{note}</p>"]


def _labels(comparison: Comparison) -> list[str]:
    """Return the table of a task with labels: accuracy with its interval, macro figures, and each label's."""
    names = [n for n in comparison.rows[0].figures if n.startswith(("precision_", "recall_", "f1_"))]
    titles = ["agent", "accuracy", "precision", "recall", "F1", *(n.replace("_", " of ", 1) for n in names)]
    lines = [_line(titles, "th")]
    for row in comparison.rows:
        figures = [f"{row.figures[n]:.3f}" for n in ("precision", "recall", "f1", *names)]
        lines.append(_line([row.agent, _shown(row.accuracy), *figures]))
    note = (
        f"Accuracy: mean with its 95 % bootstrap interval; always naming the most frequent label is right on "
        f"{comparison.rows[0].figures['majority']:.3f}. Precision, recall and F1 are means over the labels (macro)."
    )
    return ["<h2>Labels</h2><div class='wide'>", f"<table>{''.join(lines)}</table>", f"</div><p class='note'>{note}</p>"]


def _costs(comparison: Comparison) -> str:
    lines = [
        _line(
            [
                "agent",
                "tokens generated",
                "tokens trained on",
                "texts scored",
                "scored per text",
                "seconds",
                "peak memory, MiB",
                "tokens/s",
            ],
            "th",
        )
    ]
    for row in comparison.rows:
        f = row.figures
        counts = [f"{f[name]:,.0f}" for name in ("tokens_generated", "tokens_trained", "texts_scored")]
        counts.append(f"{f.get('scored_per_text', 0):.0f}")
        speed = "" if row.agent == CONTROL or "tokens_per_second" not in f else f"{f['tokens_per_second']:.0f}"
        lines.append(_line([row.agent, *counts, f"{f['seconds']:.1f}", f"{f['peak_memory']:.0f}", speed]))
    return "<table>" + "".join(lines) + "</table>"


def _line(cells: list[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def _curves(comparison: Comparison, gold: bool) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    for axis, key, title in zip(
        np.atleast_1d(figure.subplots(1, 1 + gold)), ["reward", "gold"], ["task reward", "independent score (gold)"], strict=False
    ):
        for (style, colour), (agent, results) in zip(LINES, comparison.results.items(), strict=False):
            if agent == CONTROL:
                axis.axhline(np.mean([r["curve"][0][key] for r in results]), color="#999999", linestyle=(0, (1, 3)), label=agent)
                continue
            length = min(len(r["curve"]) for r in results)
            spent = np.mean([[p["spent"] for p in r["curve"][:length]] for r in results], axis=0)
            values = np.array([[p[key] for p in r["curve"][:length]] for r in results])
            axis.plot(spent, values.mean(0), color=colour, linestyle=style, label=agent, marker="o", markersize=3)
            if len(comparison.results) <= MAX_BANDS:
                axis.fill_between(spent, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axis.set(xlabel=comparison.config.spending.unit, ylabel=title)
        axis.grid(alpha=0.25)
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def _frontier(comparison: Comparison) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for (style, colour), (agent, results) in zip(LINES, comparison.results.items(), strict=False):
        if agent == CONTROL:
            continue
        for i, result in enumerate(results):
            kl, reward = [p["kl"] for p in result["curve"]], [p["reward"] for p in result["curve"]]
            axis.plot(kl, reward, color=colour, linestyle=style, alpha=0.6, label=agent if i == 0 else None)
            axis.plot(kl[-1:], reward[-1:], color=colour, marker="o")
    axis.set(xlabel="KL from the starting model, nats per token", ylabel="task reward (validation prompts)")
    axis.grid(alpha=0.25)
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside right upper")
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
