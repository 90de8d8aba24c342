"""The reward "length": how long a continuation is, or how far from a wanted length."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import textgym

UNITS: Mapping[str, Callable[[textgym.Episode], int]] = MappingProxyType(
    {
        "tokens": lambda episode: len(episode.continuation_ids),
        "characters": lambda episode: len(episode.continuation),
        "words": lambda episode: len(episode.continuation.split()),
    }
)


class Length:
    """Length of the continuation, 0 .. infinity; with a `target`, minus the distance from it, -infinity .. 0.

    `unit` is "tokens" (the policy's own, EOS included if it was chosen; 0 for an episode built from text alone, which has none),
    "characters" (Unicode code points) or "words" (runs without white space).

    Source: none; a yardstick for learning and for length bias, see Singhal et al. (2023), "A Long Way to Go: Investigating Length
    Correlations in RLHF".
    """

    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, target: int | None = None, unit: str = "tokens") -> None:
        if unit not in UNITS:
            raise textgym.InvalidArgumentError(f"length: unit must be one of {', '.join(UNITS)}, got {unit!r}")
        if target is not None and target < 0:
            raise textgym.InvalidArgumentError(f"length: target must be None or at least 0, got {target!r}")
        self.target = target
        self.unit = unit
        self.reads_tokens = unit == "tokens"
        self.low, self.high = (0.0, float("inf")) if target is None else (float("-inf"), 0.0)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return lengths, or minus the distances from the target, (n,)."""
        lengths = [UNITS[self.unit](episode) for episode in episodes]
        return [float(length if self.target is None else -abs(length - self.target)) for length in lengths]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "length"."""
    register("length", Length)
