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


def classification(predicted: NDArray[np.int64], labels: NDArray[np.int64], n_classes: int) -> Metrics:
    """Return macro F1 (mean over the classes that occur, in either) and accuracy; (n,) each."""
    scores = []
    for k in range(n_classes):
        found, wanted = predicted == k, labels == k
        if found.any() or wanted.any():
            scores.append(2 * float((found & wanted).sum()) / float(found.sum() + wanted.sum()))
    return {"f1": float(np.mean(scores)) if scores else math.nan, "accuracy": float(np.mean(predicted == labels))}


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of two vectors (n,), 0 if one is constant; of their ranks it is Spearman's."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else 0.0
