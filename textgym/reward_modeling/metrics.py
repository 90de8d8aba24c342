"""Metrics: how well predictions agree with judgements."""

import math

import numpy as np
from numpy.typing import NDArray

Metrics = dict[str, float]


def agreement(predicted: NDArray[np.float64], ratings: NDArray[np.float64]) -> Metrics:
    """Return Pearson's and Spearman's correlation and the mean squared error; (n,) each. A constant has a correlation of 0."""
    from scipy.stats import rankdata

    return {
        "pearson": correlation(predicted, ratings),
        "spearman": correlation(rankdata(predicted), rankdata(ratings)),
        "mse": float(np.mean((predicted - ratings) ** 2)),
    }


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of two vectors (n,), 0 if one is constant, nan if one is not finite; of their ranks it is Spearman's."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale != 0 else 0.0


def area_under_curve(above: NDArray[np.floating], below: NDArray[np.floating]) -> float:
    """Return the probability that one of `above` (n,) is greater than one of `below` (m,), ties counting half: the area under the ROC curve."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([above, below]))[: len(above)]
    return float((ranks.sum() - len(above) * (len(above) + 1) / 2) / (len(above) * len(below)))
