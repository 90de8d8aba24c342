"""Collection: what raters are shown, which question they answer, and on which scale."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from textgym.errors import InvalidArgumentError

Mode = Literal["ratings", "pairs"]
MAX_POINTS = 11  # that many buttons fit into one row
MAX_NAME = 64


@dataclass(frozen=True)
class Item:
    """What one judgement is about.

    Attributes:
        id: Unique within its collection; says nothing of the sources.
        prompt: The given text, possibly "".
        texts: One continuation to rate, or two to compare.
        sources: Where each text comes from, aligned with `texts`; never shown to raters.
    """

    id: str
    prompt: str
    texts: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """The settings of a collection; with its items they are stored once and never change.

    Attributes:
        mode: "ratings": a number per text. "pairs": which of two texts, or neither.
        low, high: Ends of the rating scale, both chosen by a rater; integers, the steps between are 1.
        levels: Of a preference: 1 asks only which text is better; with more, a judgement says by how many levels (the margin).
        question: Asked above every item; "" for the mode's own.
        seed: Of the samples, and of each rater's order and sides.
        samples: Items asked for; fewer are shown where the sources have no more.
        sources, task, split, max_new_tokens: Where the texts come from, as given.
    """

    mode: Mode = "ratings"
    low: int = -4
    high: int = 4
    levels: int = 1
    question: str = ""
    seed: int = 0
    samples: int = 50
    sources: tuple[str, ...] = ()
    task: str | None = None
    split: str = "train"
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InvalidArgumentError(f'mode must be "ratings" or "pairs", got {self.mode!r}')
        if not 1 <= self.high - self.low < MAX_POINTS:
            raise InvalidArgumentError(f"the scale must have 2 to {MAX_POINTS} points, its lower end first, got {self.low} to {self.high}")
        if not 1 <= self.levels <= MAX_POINTS // 2:
            raise InvalidArgumentError(f"levels of a preference must be 1 to {MAX_POINTS // 2}, got {self.levels}")
        if self.samples < 1:
            raise InvalidArgumentError(f"samples must be at least 1, got {self.samples}")

    @property
    def values(self) -> range:
        """All judgements there are, from the lowest; in pairs from "the second text, by all levels" over 0 (neither) to "the first"."""
        return range(self.low, self.high + 1) if self.mode == "ratings" else range(-self.levels, self.levels + 1)

    def described(self) -> dict[str, Any]:
        """Return the settings as plain data; `from_described` reads them."""
        return {**asdict(self), "sources": list(self.sources)}

    @classmethod
    def from_described(cls, data: Mapping[str, Any]) -> "Collection":
        """Return the collection that `described` wrote."""
        return cls(**{**data, "sources": tuple(data["sources"])})

    def order(self, rater: str, n_items: int) -> list[int]:
        """Return the places of the items in the order of one rater: shuffled, the same at every call."""
        return [int(i) for i in self._rng("order", rater).permutation(n_items)]

    def swapped(self, rater: str, n_items: int) -> list[bool]:
        """Return for each item whether this rater sees the second text on the left: half of the items, drawn for each rater."""
        return [bool(i % 2) for i in self._rng("sides", rater).permutation(n_items)]

    def _rng(self, purpose: str, rater: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{purpose}\0{self.seed}\0{rater}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def rater_name(text: Any) -> str:
    """Return the name of a rater with its white space tidied; raises if nothing is left, or too much."""
    name = " ".join(text.split()) if isinstance(text, str) else ""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidArgumentError(f"a rater's name has 1 to {MAX_NAME} characters, got {text!r}")
    return name
