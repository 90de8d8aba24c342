"""Scaled ridge: linear regression on many sparse features, those that tell more being penalised less."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.05  # standard deviations of the targets, added to a feature's own deviation, so that none is lost
TOLERANCE = 1e-4
MAX_ITERATIONS = 200
N_FOLDS = 5

Array = NDArray[np.float64]


def solve(rows: Any, targets: Array, penalty: float, blocks: Sequence[int]) -> Array:
    """Return the weights, (features, k), that minimise |targets - rows W|² + penalty |W / scale|².

    A feature's scale is the root of how far the targets of the rows that have it lie from the mean, in the spirit of the log-count ratios of
    Wang and Manning (2012), "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification".

    Args:
        rows: A sparse matrix, (n, features), as scipy's `csr_array`.
        targets: (n, k), of mean 0.
        penalty: Weight of the squared norm.
        blocks: Numbers of features that are scaled together, in order.
    """
    from scipy.sparse import diags_array

    scale = scales(rows, targets, blocks)
    scaled = rows @ diags_array(scale)
    turned = scaled.T.tocsr()
    return np.stack([scale * _descended(scaled, turned, column, penalty) for column in targets.T], axis=1)


def cross_fitted(rows: Any, targets: Array, penalty: float, blocks: Sequence[int], rng: np.random.Generator) -> Array:
    """Return for each row what the model says that was fitted to the others, (n, k): a fifth is left out at a time."""
    folds = rng.permutation(len(targets)) % N_FOLDS
    found = np.zeros_like(targets)
    for fold in range(N_FOLDS):
        inside, outside = folds != fold, folds == fold
        if inside.any() and outside.any():
            mean = targets[inside].mean(0)
            found[outside] = mean + rows[outside] @ solve(rows[inside], targets[inside] - mean, penalty, blocks)
    return found


def scales(rows: Any, targets: Array, blocks: Sequence[int]) -> Array:
    """Return the features' scales, (features,), of mean square 1 in each block."""
    present = rows.astype(bool).astype(np.float64)
    count = present.sum(0)
    spread = float(np.sqrt((targets**2).sum(1).mean())) or 1.0
    deviation = np.linalg.norm(present.T @ (targets / spread), axis=1) / (count + 1)
    scale = np.sqrt(deviation + FLOOR)
    for part in np.split(scale, np.cumsum(blocks)[:-1]):  # views
        if len(part):
            part /= np.sqrt((part**2).mean())
    return scale  # type: ignore[no-any-return]


def _descended(rows: Any, turned: Any, target: Array, penalty: float) -> Array:
    """Return w with (rows' rows + penalty) w = rows' target, by conjugate gradients."""
    residual = turned @ target
    found, direction = np.zeros_like(residual), residual.copy()
    square = start = float(residual @ residual)
    for _ in range(MAX_ITERATIONS):
        if square <= TOLERANCE**2 * start:
            break
        moved = turned @ (rows @ direction) + penalty * direction
        step = square / float(direction @ moved)
        found += step * direction
        residual -= step * moved
        last, square = square, float(residual @ residual)
        direction = residual + square / last * direction
    return found
