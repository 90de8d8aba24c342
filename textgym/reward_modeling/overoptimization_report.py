"""The report of an over-optimisation run: gold and proxy against the square root of the KL divergence, turn-overs, ensembles."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.html_page import COLOURS, image, table, write_page
from textgym.reward_modeling.overoptimization_run import SINGLE, Curve, Overoptimization

FIGURE_TITLES = [
    "reward",
    "texts behind it",
    "alpha",
    "beta",
    "fit's R2",
    "turn-over at KL",
    "gold: start",
    "best",
    "end",
    "lost from best to end (95 %)",
    "turns over",
    "end against single (95 %)",
]


def write_overoptimization(found: Overoptimization, path: Path) -> None:
    """Write the page."""
    config = found.config
    parts = [
        "<h1>Over-optimisation</h1>",
        f"<p>Proxies fitted on {html.escape(' or '.join(map(str, config.sizes)))} texts, {config.seeds} seeds, ensembles of {config.members} "
        f"bootstraps; a gold model ({html.escape(config.gold_scorer)}, validation Pearson {found.gold_pearson:.3f}) fitted on other texts and "
        "other raters says what the texts are worth.</p>",
    ]
    for title, curves in (("Best of n", found.best_of_n), (f"RL ({config.agent}, no KL penalty)", found.rl)):
        parts += [f"<h2>{html.escape(title)}</h2>", image(figure(curves), title), table(FIGURE_TITLES, rows(found, curves))]
    parts.append(
        "<p class='note'>KL in nats per text. Solid: gold; dashed: what the reward being optimised says; dotted: the fitted form, for best "
        "of n d(α − βd), for RL d(α − β log d), d = √KL (Gao, Schulman and Hilton 2022, arXiv:2210.10760). Bands: range of the seeds. "
        "Ensembles as in Coste et al. (2023, arXiv:2310.02743). Intervals over seeds are Student's.</p>"
    )
    write_page(path, "textgym: over-optimisation", parts)


def rows(found: Overoptimization, curves: Sequence[Curve]) -> list[list[str]]:
    """Return one line per curve, as text, under `FIGURE_TITLES`."""
    lines = []
    for curve in curves:
        gold, form = curve.gold.mean(0), curve.form
        turn = f"{form.turn_over**2:.1f}" if form.turn_over < 1e3 else "never"
        against = "" if curve.how == SINGLE else str(found.delay(curves, curve.size, curve.how))
        figures = [f"{form.alpha:.2f}", f"{form.beta:.2f}", f"{form.r2:.2f}" if math.isfinite(form.r2) else "-", turn]
        ends = [f"{gold[0]:.2f}", f"{gold.max():.2f}", f"{gold[-1]:.2f}", str(curve.loss), "yes" if curve.turns_over else "no"]
        lines.append([curve.how, f"{curve.size:,}", *figures, *ends, against])
    return lines


def figure(curves: Sequence[Curve]) -> Any:
    """Return the plot: one panel per size of the proxies' data."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(curve.size for curve in curves))
    drawn = Figure(figsize=(6 * len(sizes), 4.5), layout="constrained")
    for axis, size in zip(np.atleast_1d(drawn.subplots(1, len(sizes), sharey=True)), sizes, strict=True):
        for colour, curve in zip(COLOURS, [c for c in curves if c.size == size], strict=False):
            d = np.sqrt(curve.kl.mean(0))
            order = np.argsort(d, kind="stable")
            axis.plot(d[order], curve.gold.mean(0)[order], color=colour, label=curve.how, linewidth=2)
            axis.fill_between(d[order], curve.gold.min(0)[order], curve.gold.max(0)[order], color=colour, alpha=0.15, linewidth=0)
            axis.plot(d[order], curve.proxy.mean(0)[order], color=colour, linestyle="--", linewidth=1)
            smooth = np.linspace(0, d.max(), 100)
            axis.plot(smooth, curve.gold.mean(0)[0] + curve.form(smooth), color=colour, linestyle=":", linewidth=1)
        axis.set(title=f"proxies from {size:,} texts", xlabel="d = √KL, KL in nats per text")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, title="gold (solid)")
    drawn.axes[0].set_ylabel("score, rating points")
    return drawn
