"""Statistics of comparisons: interquartile means, bootstrap intervals over seeds and prompts, probability of improvement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # (seeds, prompts)
N_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def iqm(scores: NDArray[Any]) -> float:
    """Return the interquartile mean: the mean of the middle half (Agarwal et al. 2021, arXiv:2108.13264)."""
    from scipy.stats import trim_mean

    return float(trim_mean(np.asarray(scores).ravel(), 0.25))


def bootstrap(shape: tuple[int, int], statistic: Callable[[NDArray[np.intp], NDArray[np.intp]], float], seed: int = 0) -> Estimate:
    """Return a statistic with its 95 % percentile bootstrap interval.

    Seeds and prompts are resampled independently, whole rows and whole columns: texts of one seed share a policy, texts of one prompt
    share its difficulty, so resampling single texts would give intervals that are too narrow.

    Args:
        shape: (number of seeds, number of prompts).
        statistic: Takes row and column indices, returns the figure on that sample.
        seed: Of the resampling.
    """
    from scipy.stats import bootstrap as scipy_bootstrap

    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    value = statistic(rows, columns)
    rng = np.random.default_rng(seed)
    if shape[1] < 2:
        return Estimate(value, float("nan"), float("nan"))
    if shape[0] < 2:  # one seed says nothing about other seeds: the interval covers prompts alone
        found = scipy_bootstrap(
            (columns,), lambda c: statistic(rows, c), n_resamples=N_RESAMPLES, vectorized=False, method="percentile", rng=rng
        )
    else:
        found = scipy_bootstrap((rows, columns), statistic, n_resamples=N_RESAMPLES, vectorized=False, method="percentile", rng=rng)
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high))


def iqm_interval(scores: Scores) -> Estimate:
    """Return the IQM over seeds and prompts, (seeds, prompts), with its interval."""
    return bootstrap(_shape(scores), lambda r, c: iqm(scores[np.ix_(r, c)]))


def mean_interval(scores: Scores) -> Estimate:
    """Return the mean over seeds and prompts, (seeds, prompts), with its interval."""
    return bootstrap(_shape(scores), lambda r, c: float(scores[np.ix_(r, c)].mean()))


def difference(first: Scores, second: Scores) -> Estimate:
    """Return the mean difference first − second, paired by seed and prompt, with its interval."""
    gap = first - second
    return bootstrap(_shape(gap), lambda r, c: float(gap[np.ix_(r, c)].mean()))


def probability_of_improvement(first: Scores, second: Scores) -> Estimate:
    """Return the probability that `first` beats `second` on a prompt: over all pairs of seeds, ties count half (arXiv:2108.13264)."""
    wins = (np.sign(first[:, None] - second[None, :]) + 1) / 2  # (seeds, seeds, prompts)
    return bootstrap(_shape(first), lambda r, c: float(wins[np.ix_(r, r, c)].mean()))


def _shape(scores: Scores) -> tuple[int, int]:
    return scores.shape[0], scores.shape[1]
