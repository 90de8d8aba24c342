"""Uncertainty check: is a reward wrong where it says that it may be, and how much better is it on what it dares to judge?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.experiments.statistics import Estimate
from textgym.reward_modeling.data.bootstrap import Units, resampler
from textgym.reward_modeling.metrics import correlation

Array = NDArray[np.float64]
N_RESAMPLES = 1000
N_GROUPS = 5


@dataclass(frozen=True)
class UncertaintyCheck:
    """Uncertainty against error.

    Attributes:
        kind: What the uncertainty is.
        correlation: Spearman's, of uncertainty and error, with a 95 % bootstrap interval; 0 for an uncertainty that says nothing.
        group_uncertainty: Mean in fifths of the judgements, from the least uncertain to the most, (5,).
        group_error: Mean error in them, (5,).
        coverage: Share of the judgements that is kept, from the least uncertain on, (n,), up to 1.
        risk: Mean error of what is kept, (n,); the last is the error without abstention.
        best_risk: The same if the largest errors were left out first: no uncertainty can be better, (n,).
    """

    kind: str
    correlation: Estimate
    group_uncertainty: Array
    group_error: Array
    coverage: Array
    risk: Array
    best_risk: Array

    @property
    def area(self) -> float:
        """Area under the risk-coverage curve: the mean risk over all coverages (Geifman and El-Yaniv 2017, arXiv:1705.08500)."""
        return float(self.risk.mean())

    def risk_at(self, coverage: float) -> float:
        """Return the mean error of the given share of the judgements, those of least uncertainty."""
        return float(self.risk[max(0, int(np.ceil(coverage * len(self.risk))) - 1)])


def check_uncertainty(uncertainty: Array, error: Array, kind: str = "", seed: int = 0, units: Units | None = None) -> UncertaintyCheck:
    """Compare uncertainty and error of the same judgements, (n,) each; where uncertainties are equal, their errors are averaged.

    Args:
        uncertainty: The larger, the less sure.
        error: At least 0: |score - rating|, or 1 for a wrong class or order.
        kind: What the uncertainty is.
        seed: Of the bootstrap.
        units: What is resampled, as `drawing_units` tells; None for the judgements themselves.
    """
    from scipy.stats import rankdata

    n = len(error)
    ranks = np.stack([rankdata(uncertainty), rankdata(error)])
    rng = np.random.default_rng(seed)
    sample = resampler([(str(row),) for row in range(n)] if units is None else units)
    samples = (np.repeat(np.arange(n), sample(rng)) for _ in range(N_RESAMPLES))
    drawn = [correlation(*ranks[:, rows]) for rows in samples if len(rows) > 1]
    low, high = np.quantile(drawn, [0.025, 0.975])
    order = np.argsort(uncertainty, kind="stable")
    _, group = np.unique(uncertainty[order], return_inverse=True)
    levelled = (np.bincount(group, weights=error[order]) / np.bincount(group))[group]
    count = np.arange(1, n + 1)
    fifths = np.array_split(np.arange(n), min(N_GROUPS, n))
    return UncertaintyCheck(
        kind,
        Estimate(correlation(*ranks), float(low), float(high)),
        np.array([uncertainty[order][rows].mean() for rows in fifths]),
        np.array([levelled[rows].mean() for rows in fifths]),
        count / n,
        np.cumsum(levelled) / count,
        np.cumsum(np.sort(error)) / count,
    )
