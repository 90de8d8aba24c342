"""The report of an evaluation: one HTML page - figures with intervals, calibration, thresholds, sources, and the worst misjudgements."""

import html
import math
from pathlib import Path
from typing import Any

import numpy as np

from textgym.experiments.statistics import Estimate
from textgym.html_page import COLOURS, image, table, write_page
from textgym.reward_modeling.evaluation.evaluation import LEAST_RATERS, Evaluation
from textgym.reward_modeling.evaluation.learning_curve import LearningCurve
from textgym.reward_modeling.evaluation.uncertainty import UncertaintyCheck

N_MISJUDGED = 12


def write_evaluation(evaluation: Evaluation, path: Path, data: str, curve: LearningCurve | None = None) -> None:
    """Write the page; `data` says what the reward was measured on, `curve` how the model gets better with more of it."""
    names = list(evaluation.figures)
    columns = {evaluation.reward: evaluation.figures, **evaluation.baselines}
    parts = [
        f"<h1>Is {html.escape(evaluation.reward)} any good?</h1>",
        f"<p>Measured on {evaluation.n:,} {evaluation.kind} of {html.escape(data)}. In brackets: 95 % bootstrap intervals over the "
        "judgements.</p>",
        "<h2>Agreement with people</h2>",
        table(["figure", *columns], [[name, *(shown(c[name]) for c in columns.values())] for name in names]),
        _ceiling(evaluation),
        "<h2>Score against judgement, calibration, thresholds</h2>",
        image(_figure(evaluation), "Scores against judgements, calibration and classification by threshold"),
    ]
    if evaluation.reliability is not None:
        parts.append(
            f"<p class='note'>Expected calibration error: {evaluation.reliability.error:.3f} (bins of equally many judgements).</p>"
        )
    if evaluation.classes:
        cells = [
            [name, *(f"{c[key]:.3f}" for key in ("precision", "recall", "f1")), f"{c['support']:.0f}"]
            for name, c in evaluation.classes.items()
        ]
        parts += [
            "<h2>By class</h2>",
            table(["class", "precision", "recall", "F1", "texts"], cells),
        ]
        if evaluation.kind == "ratings":
            parts.append("<p class='note'>The middle of the scale is the threshold.</p>")
    if evaluation.confusion is not None:
        counts = [[name, *map(str, row)] for name, row in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True)]
        parts += ["<h2>Taken for</h2>", table(["people say (row), reward says (column)", *evaluation.labels], counts)]
    if evaluation.uncertainty is not None:
        parts += _uncertainty(evaluation.uncertainty)
    if curve is not None:
        cells = [[f"{size:,}", shown(estimate)] for size, estimate in zip(curve.sizes, curve.estimates, strict=True)]
        parts += [
            "<h2>More data?</h2>",
            image(_curve(curve), f"{curve.figure} against the number of training judgements"),
            table(["training judgements", f"{curve.figure} [range of {curve.values.shape[1]} draws]"], cells),
            "<p class='note'>The model refitted with its recorded settings to draws of the training judgements, measured on the same "
            "judgements. In brackets: the least and the greatest of the draws; of all judgements there is but one.</p>",
        ]
    if evaluation.sources:
        cells = [[name, f"{n:,}", *(shown(f[key]) for key in names)] for name, (n, f) in evaluation.sources.items()]
        parts += ["<h2>By source</h2>", table(["source", "n", *names], cells)]
    parts += ["<h2>Furthest from people</h2>", table(["text", "people", "reward"], _misjudged(evaluation))]
    write_page(path, f"textgym: {evaluation.reward}", parts)


def shown(estimate: Estimate) -> str:
    """Return the figure with its interval, where it has one, three decimals; "-" where it could not be measured."""
    interval = f" [{estimate.low:.3f}, {estimate.high:.3f}]" if math.isfinite(estimate.low) else ""
    return f"{estimate.value:.3f}{interval}" if math.isfinite(estimate.value) else "-"


def _ceiling(evaluation: Evaluation) -> str:
    if not evaluation.ceiling:
        return f"<p class='note'>No ceiling: most texts have fewer than {LEAST_RATERS} individual ratings.</p>"
    one, half, reachable = (evaluation.ceiling[name] for name in ("one human", "split-half", "reachable"))
    return (
        f"<p class='note'>People against people: the rating of one human correlates {one:.3f} (Pearson) with the mean of the others; the mean "
        f"rating has a split-half reliability of {half:.3f}, so a perfect model would reach {reachable:.3f}.</p>"
    )


def _figure(evaluation: Evaluation) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3 if evaluation.thresholds else 2)
    axes[0].scatter(evaluation.scores, evaluation.truth, s=6, alpha=0.3, color=COLOURS[0], linewidths=0)
    pairs = evaluation.kind == "pairs"
    truth = {"pairs": "margin", "labels": "rank of the class"}.get(evaluation.kind, "mean human rating")
    axes[0].set(xlabel="score of chosen - rejected" if pairs else "reward", ylabel=truth)
    if evaluation.reliability is not None:
        r = evaluation.reliability
        ends = [min(r.predicted.min(), r.observed.min()), max(r.predicted.max(), r.observed.max())]
        axes[1].plot(ends, ends, color="#999999", linestyle="--", label="perfect")
        axes[1].plot(r.predicted, r.observed, color=COLOURS[0], marker="o", label="observed")
        axes[1].set(xlabel="predicted (mean of the bin)", ylabel="observed (mean of the bin)")
        axes[1].legend(frameon=False)
    if evaluation.thresholds:
        for colour, key in zip(COLOURS, ("accuracy", "precision", "recall", "f1"), strict=False):
            axes[2].plot(evaluation.thresholds["threshold"], evaluation.thresholds[key], color=colour, label=key)
        axes[2].set(xlabel='"liked" if the reward is above', ylim=(0, 1.02))
        axes[2].legend(frameon=False)
    for axis in axes:
        axis.grid(alpha=0.25)
    return figure


def _uncertainty(check: UncertaintyCheck) -> list[str]:
    cells = [
        [f"fifth {i}", f"{u:.3f}", f"{e:.3f}"]
        for i, (u, e) in enumerate(zip(check.group_uncertainty.tolist(), check.group_error.tolist(), strict=True), 1)
    ]
    return [
        "<h2>Does it know when it is wrong?</h2>",
        f"<p>Uncertainty: {html.escape(check.kind)}. Its rank correlation with the error is {shown(check.correlation)}.</p>",
        table(["judgements by uncertainty", "mean uncertainty", "mean error"], cells),
        image(_risk(check), "Mean error against the share of texts that the reward does not abstain from"),
        f"<p class='note'>Mean error over all coverages {check.area:.3f}; without abstention {check.risk[-1]:.3f}; on the surest half "
        f"{check.risk_at(0.5):.3f}.</p>",
    ]


def _risk(check: UncertaintyCheck) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(check.coverage, check.risk, color=COLOURS[0], label="least uncertain kept")
    axis.plot(check.coverage, check.best_risk, color=COLOURS[2], linestyle=":", label="largest errors left out (best possible)")
    axis.axhline(check.risk[-1], color="#999999", linestyle="--", label="at random")
    axis.set(xlabel="coverage: share of texts judged", ylabel="risk: mean error", ylim=(0, None))
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    return figure


def _curve(curve: LearningCurve) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(curve.sizes, [estimate.value for estimate in curve.estimates], color=COLOURS[0], marker="o")
    for column in curve.values.T:
        axis.plot(curve.sizes, column, color=COLOURS[0], alpha=0.3, linewidth=1)
    axis.set(xscale="log", xlabel="training judgements", ylabel=curve.figure)
    axis.grid(alpha=0.25)
    return figure


def _misjudged(evaluation: Evaluation) -> list[list[str]]:
    worst = np.argsort(-evaluation.errors, kind="stable")[:N_MISJUDGED].tolist()
    if evaluation.labels:
        return [[evaluation.texts[i], evaluation.labels[int(evaluation.truth[i])], f"{evaluation.scores[i]:+.2f}"] for i in worst]
    return [[evaluation.texts[i], f"{evaluation.truth[i]:+.2f}", f"{evaluation.scores[i]:+.2f}"] for i in worst]
