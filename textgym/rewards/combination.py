"""Combination: how the scores of an ensemble's members become one score, for ensembles of every kind."""

from typing import Literal, get_args

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.rewards.protocol import Array

Combination = Literal["mean", "min", "mean-std", "uncertainty-weighted"]


def combine(scores: Array, how: Combination, penalty: float = 1.0) -> Array:
    """Return the score of an ensemble, (...).

    Coste et al. (2023), "Reward Model Ensembles Help Mitigate Overoptimization", arXiv:2310.02743: mean, worst case and uncertainty-weighted
    optimisation.

    Args:
        scores: Of the members, (members, ...).
        how: "mean"; "min"; "mean-std", mean - penalty · standard deviation; "uncertainty-weighted", mean - penalty · variance, as in the
            paper.
        penalty: Their k or λ, at least 0.
    """
    check_combination(how)
    if how == "min":
        return np.asarray(scores.min(0), np.float64)
    mean = np.asarray(scores.mean(0), np.float64)
    if how == "mean":
        return mean
    return np.asarray(mean - penalty * (scores.std(0) if how == "mean-std" else scores.var(0)), np.float64)


def combined_range(low: float, high: float, how: Combination, penalty: float = 1.0) -> tuple[float, float]:
    """Return the range of the combined score of members whose scores lie in `low`..`high`."""
    if how in ("mean", "min") or penalty == 0:
        return low, high
    most = (high - low) / 2  # numbers in a range deviate by at most half of it
    return low - penalty * (most if how == "mean-std" else most**2), high


def check_combination(how: str) -> None:
    """Raise `InvalidArgumentError` for a combination that is none."""
    if how not in get_args(Combination):
        raise InvalidArgumentError(f"how must be one of {', '.join(get_args(Combination))}, got {how!r}")
