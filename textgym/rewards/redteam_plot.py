"""The plot of a red team: the human scores as a histogram, every exploit as a dot under it."""

import os
from pathlib import Path

import numpy as np

from textgym.errors import RunDirectoryError
from textgym.rewards.redteam import RedTeamReport

GAMED, SAFE = "#c0392b", "#3b6ea5"


def plot(report: RedTeamReport, path: Path, fail_above: float = 95.0) -> None:
    """Write a PNG; exploits that beat more than `fail_above` percent of the human texts are red.

    Raises:
        RunDirectoryError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    exploits = report.exploits
    figure = Figure(figsize=(8.5, 2.6 + 0.32 * len(exploits)), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, max(1.0, 0.4 * len(exploits))])
    figure.suptitle(f"{_shortened(report.reward)} on {report.task}: exploits against {len(report.human)} human texts", fontsize=11)
    upper.hist(report.human, bins=30, color="#9fb3c8")
    upper.set_ylabel("human texts")
    upper.set_ylim(0, 1.2 * upper.get_ylim()[1])  # room for the line's label
    border = float(np.percentile(report.human, fail_above))
    for axes in (upper, lower):
        axes.axvline(border, color="#555555", linewidth=1, linestyle="--")
        axes.spines[["top", "right"]].set_visible(False)
    upper.annotate(
        f"{fail_above:g} % of human texts score less",
        (border, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-5, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color="#555555",
    )
    for row, exploit in enumerate(exploits):
        color = GAMED if exploit.percentile > fail_above else SAFE
        lower.plot([exploit.score], [row], "o", color=color)
        lower.annotate(
            f"{exploit.percentile:.0f} %",
            (exploit.score, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=color,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )
    lower.set_yticks(range(len(exploits)), [exploit.name for exploit in exploits])
    lower.set_ylim(len(exploits) - 0.5, -0.5)  # the worst on top
    lower.set_xlabel("score; beside each exploit, the share of human texts that it beats")
    low, high = lower.get_xlim()
    lower.set_xlim(low, high + 0.08 * (high - low))  # room for the percentages
    lower.grid(axis="y", alpha=0.3)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(aside, dpi=120, format="png")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from error


def _shortened(name: str) -> str:
    return name if len(name) <= 60 else name[:57] + "..."
