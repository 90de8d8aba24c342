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


def solve(rows: Any, targets: Array, penalty: float, blocks: Sequence[int]) -> tuple[Array, Array]:
    """Return the weights W, (features, k), and intercepts b, (k,), that minimise |targets - rows W - b|² + penalty |W / scale|².

    A feature's scale is the root of how far the targets of the rows that have it lie from the mean, in the spirit of the log-count ratios of
    Wang and Manning (2012), "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification".

    Args:
        rows: A sparse matrix, (n, features), as scipy's `csr_array`.
        targets: (n, k).
        penalty: Weight of the squared norm.
        blocks: Numbers of features that are scaled together, in order.
    """
    from scipy.sparse import diags_array

    mean = targets.mean(0)
    scale = scales(rows, targets - mean, blocks)
    scaled = rows @ diags_array(scale)
    turned, middle = scaled.T.tocsr(), scaled.mean(0)
    found = np.stack([_descended(scaled, turned, middle, column, penalty) for column in (targets - mean).T], axis=1)
    return scale[:, None] * found, mean - middle @ found


def cross_fitted(
    rows: Any, targets: Array, penalty: float, blocks: Sequence[int], rng: np.random.Generator, texts: Sequence[str] | None = None
) -> Array:
    """Return for each row what the model says that was fitted to the others, (n, k): a fifth is left out at a time.

    Args:
        rows, targets, penalty, blocks: As for `solve`.
        rng: Of the fifths.
        texts: Of the rows: those of one text are left out together, or else the text would tell of itself; None if all differ.
    """
    numbers: dict[str, int] = {}
    text = np.arange(len(targets)) if texts is None else np.array([numbers.setdefault(text, len(numbers)) for text in texts])
    folds = (rng.permutation(int(text.max()) + 1) % N_FOLDS)[text]
    found = np.zeros_like(targets)
    for fold in range(N_FOLDS):
        inside, outside = folds != fold, folds == fold
        if inside.any() and outside.any():
            weights, intercepts = solve(rows[inside], targets[inside], penalty, blocks)
            found[outside] = rows[outside] @ weights + intercepts
    return found


def scales(rows: Any, targets: Array, blocks: Sequence[int]) -> Array:
    """Return the features' scales, (features,), of mean square 1 in each block; the targets' means are 0."""
    present = rows.astype(bool).astype(np.float64)
    count = present.sum(0)
    spread = float(np.sqrt((targets**2).sum(1).mean())) or 1.0
    deviation = np.linalg.norm(present.T @ (targets / spread), axis=1) / (count + 1)
    scale = np.sqrt(deviation + FLOOR)
    for part in np.split(scale, np.cumsum(blocks)[:-1]):  # views
        if len(part):
            part /= np.sqrt((part**2).mean())
    return scale  # type: ignore[no-any-return]


def _descended(rows: Any, turned: Any, middle: Array, target: Array, penalty: float) -> Array:
    """Return w with (C'C + penalty) w = C' target, C being the rows less their middle, by conjugate gradients; the target's mean is 0."""
    residual: Array = turned @ target
    found: Array
    found, direction = np.zeros_like(residual), residual.copy()
    square = start = float(residual @ residual)
    for _ in range(MAX_ITERATIONS):
        if square <= TOLERANCE**2 * start:
            break
        reached = rows @ direction - middle @ direction
        moved = turned @ reached - middle * reached.sum() + penalty * direction
        step = square / float(direction @ moved)
        found += step * direction
        residual -= step * moved
        last, square = square, float(residual @ residual)
        direction = residual + square / last * direction
    return found
