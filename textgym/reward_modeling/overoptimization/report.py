"""The report of an over-optimisation run: gold and proxy against the square root of the KL divergence, turn-overs, ensembles."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.experiments.statistics import Estimate
from textgym.html_page import COLOURS, image, table, write_page
from textgym.reward_modeling.overoptimization.config import COMBINATIONS, SINGLE
from textgym.reward_modeling.overoptimization.curve import Curve
from textgym.reward_modeling.overoptimization.run import Overoptimization

FIGURE_TITLES = [
    "reward",
    "texts behind it",
    "alpha",
    "beta",
    "fit's R2",
    "fitted turn-over at KL",
    "gold: start",
    "best",
    "end (95 %)",
    "rise from start to peak (95 %)",
    "fall from peak to end (95 %)",
    "proxy's gain from peak to end (95 %)",
    "turns over",
    "KL at peak (95 %)",
    "KL at peak against single (95 %)",
    "end against single (95 %)",
]


def write_overoptimization(found: Overoptimization, path: Path) -> None:
    """Write the page."""
    config = found.config
    parts = [
        "<h1>Over-optimisation</h1>",
        f"<p>Proxies fitted on {html.escape(' or '.join(map(str, config.sizes)))} texts, {config.seeds} seeds, ensembles of {config.members} "
        f"bootstraps; a gold model ({html.escape(config.gold_scorer)}, the best of up to {config.gold_rounds} rounds of attack, validation Pearson "
        f"{found.gold_pearson:.3f}) fitted on other texts and other raters says what the texts are worth.</p>",
    ]
    for title, curves in (("Best of n", found.best_of_n), (f"RL ({config.agent}, no KL penalty)", found.rl)):
        parts += [
            f"<h2>{html.escape(title)}</h2>",
            f"<p>{html.escape(verdict(found, curves))}</p>",
            image(figure(curves), title),
            table(FIGURE_TITLES, rows(found, curves)),
        ]
    parts.append(
        "<p class='note'>KL in nats per text. Solid: gold; dashed: what the reward being optimised says; dotted: the fitted form, for best "
        "of n d(α − βd), for RL d(α − β log d), d = √KL (Gao, Schulman and Hilton 2022, arXiv:2210.10760). Bands: range of the seeds. "
        "Circles: where the gold score, averaged over the seeds, turns over. For rise and fall each seed's peak is where the mean of the other "
        'seeds is highest: chosen on the same scores, it would be one of noise too. Turns over: "yes" where rise, fall and the proxy\'s gain '
        'are each told from none (their intervals lie above 0), "on average" where only their means do. KL at peak is that of a seed\'s own '
        "highest gold score; a seed whose gold score never falls counts with its last KL. "
        "Ensembles as in Coste et al. (2023, arXiv:2310.02743). Intervals over seeds are Student's.</p>"
    )
    write_page(path, "textgym: over-optimisation", parts)


def rows(found: Overoptimization, curves: Sequence[Curve]) -> list[list[str]]:
    """Return one line per curve, as text, under `FIGURE_TITLES`."""
    lines = []
    for curve in curves:
        gold, form = curve.gold.mean(0), curve.form
        turn = f"{form.turn_over**2:.1f}" if form.turn_over < 1e3 else "never"
        against = ["", ""] if curve.how == SINGLE else list(map(str, found.against_single(curves, curve.size, curve.how)))
        figures = [f"{form.alpha:.2f}", f"{form.beta:.2f}", f"{form.r2:.2f}" if math.isfinite(form.r2) else "-", turn]
        ends = [f"{gold[0]:.2f}", f"{gold.max():.2f}", str(curve.end), str(curve.rise), str(curve.fall), str(curve.proxy_gain)]
        lines.append([curve.how, f"{curve.size:,}", *figures, *ends, _turned(curve), str(curve.kl_at_peak), *against])
    return lines


def verdict(found: Overoptimization, curves: Sequence[Curve]) -> str:
    """Return in words which single proxies turn over, and whether ensembles delay it."""
    sentences = []
    for single in (curve for curve in curves if curve.how == SINGLE):
        where = f"From {single.size:,} texts"
        if not single.turns_over:
            sentences.append(
                f"{where}, the gold score of the single proxy does not turn over (it {_course(single)}): there is nothing to delay."
            )
            continue
        unsure = [
            name
            for name, part in (("rise", single.rise), ("fall", single.fall), ("proxy's further rise", single.proxy_gain))
            if part.low <= 0
        ]
        doubt = f"; with these seeds the {' and the '.join(unsure)} cannot be told from none" if unsure else ""
        sentences.append(
            f"{where}, the gold score of the single proxy turns over: it rises by {single.rise} up to a KL of "
            f"{single.kl.mean(0)[single.peak]:.1f} nats and falls by {single.fall} from there, while the proxy rises by {single.proxy_gain} more{doubt}."
        )
        for how in COMBINATIONS:
            peak, end = found.against_single(curves, single.size, how)
            sentences.append(
                f'The ensemble "{how}" {_compared(peak, "delays it", "hastens it", "neither delays nor hastens it")} (KL at peak {peak}) and '
                f"ends {_compared(end, 'higher', 'lower', 'neither higher nor lower')} (gold {end})."
            )
    return " ".join(sentences)


def _compared(difference: Estimate, above: str, below: str, neither: str) -> str:
    if difference.low > 0:
        return above
    return below if difference.high < 0 else f"{neither} distinguishably"


def _course(curve: Curve) -> str:
    if curve.peak == 0:
        return "never rises"
    if curve.peak == curve.gold.shape[1] - 1:
        return "is highest at the end"
    return "falls only as the proxy does" if curve.proxy_gain.value <= 0 else "rises and falls by no more than noise"


def _turned(curve: Curve) -> str:
    if not curve.turns_over:
        return "no"
    return "yes" if curve.surely_turns_over else "on average"


def figure(curves: Sequence[Curve]) -> Any:
    """Return the plot, for each size of the proxies' data one row: gold beside proxies, and the gold scores alone."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(curve.size for curve in curves))
    drawn = Figure(figsize=(11, 4 * len(sizes)), layout="constrained")
    for (both, alone), size in zip(drawn.subplots(len(sizes), 2, squeeze=False), sizes, strict=True):
        for colour, curve in zip(COLOURS, [c for c in curves if c.size == size], strict=False):
            order = np.argsort(curve.kl.mean(0), kind="stable")
            d, gold = np.sqrt(curve.kl.mean(0))[order], curve.gold[:, order]
            both.plot(d, curve.proxy.mean(0)[order], color=colour, linestyle="--", linewidth=1)
            for axis in (both, alone):
                axis.plot(d, gold.mean(0), color=colour, label=curve.how, linewidth=2)
            alone.fill_between(d, gold.min(0), gold.max(0), color=colour, alpha=0.1, linewidth=0)
            if curve.turns_over:
                place = np.sqrt(curve.kl.mean(0))[curve.peak], curve.gold.mean(0)[curve.peak]
                alone.plot(*place, "o", color=colour, markersize=9, markerfacecolor="none", markeredgewidth=2)
            smooth = np.linspace(0, d.max(), 100)
            alone.plot(smooth, gold.mean(0)[0] + curve.form(smooth), color=colour, linestyle=":", linewidth=1)
        both.set(title=f"proxies from {size:,} texts (dashed), gold (solid)", ylabel="score, rating points")
        alone.set(title="gold alone")
        for axis in (both, alone):
            axis.set_xlabel("d = √KL, KL in nats per text")
            axis.grid(alpha=0.25)
        both.legend(frameon=False)
    return drawn
