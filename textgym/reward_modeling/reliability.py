"""Reliability: predictions against what came true, in bins - the calibration curve and its expected error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
N_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Predictions against truth in bins of equally many texts, (bins,) each."""

    predicted: Array
    observed: Array
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean |predicted − observed| over the texts (Naeini et al. 2015; here for bins of equal count)."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))


def reliability(predicted: Array, observed: Array) -> Reliability:
    """Return the curve of predictions and what was observed, (n,) each: a rating, or 1 where the predicted event came true and 0 else."""
    n, n_bins = len(predicted), min(N_BINS, len(predicted))
    count = np.full(n_bins, n // n_bins)
    count[: n % n_bins] += 1
    values, group, size = np.unique(predicted, return_inverse=True, return_counts=True)
    truth = np.repeat(
        np.bincount(group.reshape(-1), weights=observed) / size, size
    )  # equal predictions have no order: they share their mean
    starts = np.cumsum(count) - count
    return Reliability(np.add.reduceat(np.repeat(values, size), starts) / count, np.add.reduceat(truth, starts) / count, count)


def sides(n: int, seed: int = 0) -> NDArray[np.bool_]:
    """Return which of each pair is called the first, (n,): at random, else "chosen" would always be right."""
    return np.random.default_rng(seed).random(n) < 0.5
