"""Abstention: a stated score in place of one that a reward model is not sure of."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Abstention:
    """When a reward model abstains, and what it says instead.

    Attributes:
        above: Uncertainty from which on (exclusive) it does, in the unit of its `uncertainty`.
        fallback: The score it then gives.
    """

    above: float
    fallback: float

    def applied(self, scores: Array, uncertainty: Array) -> tuple[Array, dict[str, Array]]:
        """Return the scores with the fallback in place, and "abstained", 1 where it stands and 0 elsewhere; (n,) each."""
        abstained = uncertainty > self.above
        return np.where(abstained, self.fallback, scores), {"abstained": abstained.astype(np.float64)}


def abstention(above: float | None, fallback: float | None, low: float, high: float, uncertainty_kind: str) -> Abstention | None:
    """Return the abstention that a user asked for, None for none; raise `InvalidArgumentError` for one that cannot be.

    Args:
        above, fallback: As given, None where they were not.
        low, high: Range of the scores.
        uncertainty_kind: What the model's uncertainty is, "" if it has none.
    """
    if above is None and fallback is None:
        return None
    if above is None or fallback is None:
        raise InvalidArgumentError("to abstain takes both: abstain_above, an uncertainty, and fallback, the score given instead")
    if not uncertainty_kind:
        raise InvalidArgumentError(
            "abstain_above: this model does not know how uncertain it is; fit it with --members 5 --bootstrap, to single raters' ratings by "
            "the loss 'heteroscedastic', or to labels"
        )
    if not (math.isfinite(above) and above >= 0):
        raise InvalidArgumentError(f"abstain_above must be at least 0, got {above}")
    if not low <= fallback <= high:
        raise InvalidArgumentError(f"fallback must be inside the range of the scores, {low:g} to {high:g}, got {fallback}")
    return Abstention(float(above), float(fallback))
