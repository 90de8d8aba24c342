"""Judgements: what people said of texts - ratings, class labels, preference pairs, expert texts - in one tidy form."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar, get_args

from textgym.errors import InvalidArgumentError

Split = Literal["train", "validation", "test", ""]
Kind = Literal["ratings", "labels", "pairs", "texts"]

MEAN_TOLERANCE = 0.0051  # a mean rating may be rounded to two decimals


class JudgementError(InvalidArgumentError):
    """A judgement that cannot be one.

    Args:
        field: The field at fault, "" if none can be named.
        problem: What is wrong with which value, and what to do.
        index: The judgement's place in its set, -1 for one alone.
    """

    def __init__(self, field: str, problem: str, index: int = -1) -> None:
        super().__init__(f"field {field!r}: {problem}" if field else problem)
        self.field, self.problem, self.index = field, problem, index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What every kind of judgement has.

    Attributes:
        id: Unique within its data set; not empty.
        prompt: The given text; "" where there is none.
        source: Where the text comes from, for tables per source.
        group: Judgements of one group stay in one split; "" for the id.
        split: "train", "validation", "test", or "" where none was drawn yet.
        metadata: Whatever else is known; what JSON can say, if it is to be written.
    """

    id: str
    prompt: str = ""
    source: str = ""
    group: str = ""
    split: Split = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id:
            raise JudgementError("id", "is empty; give every judgement a name of its own, or leave the field out of all")
        if self.split not in get_args(Split):
            raise JudgementError("split", f"is {_shown(self.split)}; it must be train, validation, test or empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedText(_Judgement):
    """A text with a rating.

    Attributes:
        text: The continuation (the whole text where there is no prompt); not blank.
        rating: Mean rating, finite.
        ratings: Individual ratings where known, (raters,); their mean is `rating`.
        raters: Who gave them, aligned with `ratings`; empty where unknown.
        aspects: Further mean ratings by aspect, for multi-task fitting; finite.
    """

    text: str
    rating: float
    ratings: tuple[float, ...] = ()
    raters: tuple[str, ...] = ()
    aspects: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _Judgement.__post_init__(self)  # super() does not work in a class with slots
        _check_text("text", self.text)
        _check_finite("rating", self.rating)
        for rating in self.ratings:
            _check_finite("ratings", rating)
        for aspect, rating in self.aspects.items():
            _check_finite(f"aspects.{aspect}", rating)
        if self.raters and len(self.raters) != len(self.ratings):
            raise JudgementError("raters", f"holds {len(self.raters)} names for {len(self.ratings)} ratings; give one a rating, or none")
        if self.ratings and abs(mean_of(self.ratings) - self.rating) > MEAN_TOLERANCE + 1e-9 * abs(self.rating):
            mean = f"{mean_of(self.ratings):.6g}"
            raise JudgementError("rating", f"is {self.rating:.6g} but the mean of `ratings` is {mean}; correct one, or leave `rating` out")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText(_Judgement):
    """A text, not blank, with a class label, not empty."""

    text: str
    label: str

    def __post_init__(self) -> None:
        _Judgement.__post_init__(self)
        _check_text("text", self.text)
        _check_text("label", self.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair(_Judgement):
    """Two continuations of one prompt, one of which was preferred.

    Attributes:
        chosen, rejected: The continuations, not blank; in a tie their order means nothing, and only then may they be equal.
        margin: How much better, in the scale's own unit, at least 0; None where not asked.
        tie: True if neither was preferred.
        rater: Who judged; "" where unknown.
    """

    chosen: str
    rejected: str
    margin: float | None = None
    tie: bool = False
    rater: str = ""

    def __post_init__(self) -> None:
        _Judgement.__post_init__(self)
        _check_text("chosen", self.chosen)
        _check_text("rejected", self.rejected)
        if self.chosen == self.rejected and not self.tie:
            raise JudgementError("rejected", "equals `chosen`; a text cannot be preferred to itself: leave the pair out, or set `tie`")
        if self.margin is not None:
            _check_finite("margin", self.margin)
            if self.margin < 0:
                raise JudgementError("margin", f"is {self.margin:.6g}; it must be at least 0: swap `chosen` and `rejected`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertText(_Judgement):
    """A text, not blank, that an expert wrote: good by definition, without a number."""

    text: str

    def __post_init__(self) -> None:
        _Judgement.__post_init__(self)
        _check_text("text", self.text)


J = TypeVar("J", RatedText, LabelledText, PreferencePair, ExpertText)

CLASSES: Mapping[Kind, type[_Judgement]] = {"ratings": RatedText, "labels": LabelledText, "pairs": PreferencePair, "texts": ExpertText}


@dataclass(frozen=True)
class JudgementSet(Generic[J]):
    """Judgements of one kind.

    Attributes:
        kind: "ratings", "labels", "pairs" or "texts".
        items: The judgements, ids unique.
        low, high: Ends of the rating scale, for ratings; None where unknown.
        classes: Class names in order (of rank, where they have one), for labels; empty where nobody declared them.
    """

    kind: Kind
    items: tuple[J, ...]
    low: float | None = None
    high: float | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `JudgementError` with the place of the first judgement that does not belong here."""
        if self.kind not in CLASSES:
            raise InvalidArgumentError(f"kind must be one of {', '.join(CLASSES)}, got {self.kind!r}")
        self._check_scale()
        seen: dict[str, int] = {}
        for index, item in enumerate(self.items):
            if not isinstance(item, CLASSES[self.kind]):
                raise JudgementError("kind", f"is {self.kind!r} but judgement {index} is a {type(item).__name__}", index)
            if seen.setdefault(item.id, index) != index:
                problem = f"{_shown(item.id)} stands twice (first in judgement {seen[item.id] + 1}); ids must be unique"
                raise JudgementError("id", problem, index)
            if isinstance(item, RatedText):
                self._check_on_scale(item, index)
            elif isinstance(item, LabelledText) and self.classes and item.label not in self.classes:
                raise JudgementError("label", f"{_shown(item.label)} is none of the classes {', '.join(self.classes)}", index)

    def __len__(self) -> int:
        return len(self.items)

    def split(self, name: Split) -> "JudgementSet[J]":
        """Return the judgements of one split."""
        if name not in get_args(Split):
            raise InvalidArgumentError(f'split must be "train", "validation", "test" or "", got {name!r}')
        return replace(self, items=tuple(item for item in self.items if item.split == name))

    def _check_scale(self) -> None:
        for end, value in (("low", self.low), ("high", self.high)):
            if value is not None:
                _check_finite(end, value)
                if self.kind != "ratings":
                    raise JudgementError(end, f"belongs to ratings, not to {self.kind}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise JudgementError("high", f"is {self.high:.6g}; it must be above `low`, {self.low:.6g}")
        if self.classes and self.kind != "labels":
            raise JudgementError("classes", f"belongs to labels, not to {self.kind}")
        if len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise JudgementError("classes", f"{_shown(list(self.classes))} must be different names, none empty")

    def _check_on_scale(self, item: RatedText, index: int) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not low <= item.rating <= high:
            raise JudgementError("rating", f"{item.rating:.6g} is outside the scale {low:g} to {high:g}", index)
        for rating in item.ratings:
            if not low <= rating <= high:
                raise JudgementError("ratings", f"{rating:.6g} is outside the scale {low:g} to {high:g}", index)


def texts_of(item: _Judgement) -> tuple[str, ...]:
    """Return the whole texts that were judged, prompt included: two for a pair, else one."""
    return tuple(item.prompt + continuation for continuation in continuations_of(item))


def continuations_of(item: _Judgement) -> tuple[str, ...]:
    """Return the continuations that were judged: two for a pair, else one."""
    if isinstance(item, PreferencePair):
        return item.chosen, item.rejected
    assert isinstance(item, (RatedText, LabelledText, ExpertText))
    return (item.text,)


def mean_of(ratings: tuple[float, ...]) -> float:
    """Return the mean, without overflow and whatever the order."""
    return math.fsum(rating / len(ratings) for rating in ratings)


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise JudgementError(name, f"is {'empty' if not text else f'blank ({_shown(text)})'}; leave the judgement out")


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise JudgementError(name, f"is {value}; it must be a finite number")


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
