"""Judgements: what people said of texts - ratings, class labels, preference pairs, expert texts - in one tidy form."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

Split = Literal["train", "validation", "test", ""]
Kind = Literal["ratings", "labels", "pairs", "texts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What every kind of judgement has.

    Attributes:
        id: Unique within its data set.
        prompt: The given text; "" where there is none.
        source: Where the text comes from, for tables per source.
        group: Judgements of one group stay in one split; "" for the id.
        split: "train", "validation", "test", or "" where none was drawn yet.
        metadata: Whatever else is known.
    """

    id: str
    prompt: str = ""
    source: str = ""
    group: str = ""
    split: Split = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedText(_Judgement):
    """A text with a rating.

    Attributes:
        text: The continuation (the whole text where there is no prompt).
        rating: Mean rating, finite.
        ratings: Individual ratings where known, (raters,).
        raters: Who gave them, aligned with `ratings`; empty where unknown.
        aspects: Further mean ratings by aspect, for multi-task fitting.
    """

    text: str
    rating: float
    ratings: tuple[float, ...] = ()
    raters: tuple[str, ...] = ()
    aspects: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText(_Judgement):
    """A text with a class label."""

    text: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair(_Judgement):
    """Two continuations of one prompt, one of which was preferred.

    Attributes:
        chosen, rejected: The continuations; in a tie their order means nothing.
        margin: How much better, in the scale's own unit; None where not asked.
        tie: True if neither was preferred.
        rater: Who judged; "" where unknown.
    """

    chosen: str
    rejected: str
    margin: float | None = None
    tie: bool = False
    rater: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertText(_Judgement):
    """A text that an expert wrote: good by definition, without a number."""

    text: str


J = TypeVar("J", RatedText, LabelledText, PreferencePair, ExpertText)


@dataclass(frozen=True)
class JudgementSet(Generic[J]):
    """Judgements of one kind.

    Attributes:
        kind: "ratings", "labels", "pairs" or "texts".
        items: The judgements, ids unique.
        low, high: Ends of the rating scale, for ratings; None where unknown.
        classes: Class names in order (of rank, where they have one), for labels.
    """

    kind: Kind
    items: tuple[J, ...]
    low: float | None = None
    high: float | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def split(self, name: Split) -> "JudgementSet[J]":
        """Return the judgements of one split."""
        return replace(self, items=tuple(item for item in self.items if item.split == name))
