"""Search space: which values of a setting are worth trying, as an agent's class declares it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from textgym.errors import InvalidArgumentError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers if both bounds are.

    Attributes:
        low, high: The bounds.
        log: Whether equal ratios, not equal differences, are equally likely; needs `low` above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise InvalidArgumentError(f"a range wants low < high, and low above 0 for log, got {self}")

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, int if self.whole else (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """A few values: texts, numbers, True and False, None."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or not all(v is None or isinstance(v, (str, int, float, bool)) for v in self.values):
            raise InvalidArgumentError(
                f"a choice wants at least two values that are texts, numbers, True, False or None, got {self.values}"
            )

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


SearchSpace: TypeAlias = Mapping[str, Range | Choice | None]
"""Setting → its values; None takes a setting out that a base class has put in."""
