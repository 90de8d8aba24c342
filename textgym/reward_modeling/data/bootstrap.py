"""Bootstrap: judgements drawn anew, with replacement, those that hang together drawn together."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.judgements import JudgementSet, texts_of
from textgym.reward_modeling.data.near_duplicates import clusters, normalised
from textgym.reward_modeling.data.splits import cluster_names

LARGEST = 0.5  # share of the judgements that one cluster may hold: of a larger one every draw is nearly the whole set

Units = Sequence[tuple[str, ...]]


def drawing_units(judgements: "JudgementSet[Any]", names: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    """Return for each judgement what must be drawn for it to be in a sample: one name, or those of a pair's two texts.

    First choice are the clusters of `splits.cluster_names`, for drawn one by one a text would seem to be confirmed by its own copies. Where
    one of them holds more than half of the judgements - pairs that share texts chain into one, ratings under one long prompt are alike - it
    is the texts that are drawn, near-duplicates as one; and where these hang together, too, texts that are equal.

    Args:
        judgements: Of one split, at least one.
        names: Name of each judgement's cluster; None to find them, which takes seconds for ten thousand texts.
    """
    names = names if names is not None else cluster_names(judgements)
    if max(Counter(names).values()) <= LARGEST * len(names):
        return [(name,) for name in names]
    texts = [texts_of(item) for item in judgements.items]
    flat = list(dict.fromkeys(text for several in texts for text in several))
    alike = dict(zip(flat, map(str, clusters(flat)), strict=True))
    if max(Counter(alike.values()).values()) > LARGEST * len(flat):
        alike = {text: normalised(text) for text in flat}
    return [tuple(dict.fromkeys(alike[text] for text in several)) for several in texts]


def resampler(units: Units) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """Return a function that draws as many units as there are and returns how often each judgement is in that sample, (n,).

    A judgement of two units counts as often as the product of their counts: so the pairs of the drawn texts are what they would be had the
    texts been collected anew (Snijders and Borgatti 1999, "Non-parametric standard errors and tests for network statistics"). Where few pairs
    share texts, that varies more than new pairs would, up to threefold: intervals from it are cautious.
    """
    places: dict[str, int] = {}
    first = np.array([places.setdefault(several[0], len(places)) for several in units])
    last = np.array([places.setdefault(several[-1], len(places)) for several in units])

    def drawn(rng: np.random.Generator) -> NDArray[np.int64]:
        counts = np.bincount(rng.integers(len(places), size=len(places)), minlength=len(places))
        own: NDArray[np.int64] = np.where(first == last, counts[first], counts[first] * counts[last])
        return own

    return drawn


def bootstrapped(
    judgements: "JudgementSet[Any]", rng: np.random.Generator, names: Sequence[str] | Units | None = None
) -> "JudgementSet[Any]":
    """Return as many judgements, about, as there are, drawn by whole clusters (Efron 1979; clusters as in Field and Welsh 2007) or by texts.

    What is drawn together says `drawing_units`. A judgement that is drawn again gets another id. Scale and classes are those of the whole set.

    Args:
        judgements: Of one split, at least one.
        rng: What the draw depends on.
        names: Name of each judgement's cluster, or what `drawing_units` returned; None to find them.

    Raises:
        InvalidArgumentError: There are too few different texts for draws to differ.
    """
    units = _units(judgements, names)
    several = any(len(own) > 1 for own in units)
    n_units = len({name for own in units for name in own})
    if n_units < (3 if several else 2):  # of two texts there is but one pair
        raise InvalidArgumentError(
            f"the {len(judgements):,} judgements are of {n_units} different text{'s' if n_units > 1 else ''}, so every bootstrap of them is the "
            "whole set again: judge more texts, or let the members differ by their seeds alone"
        )
    rows = _by_texts(units, rng) if several else _by_clusters(units, rng)
    items: list[Any] = []
    seen: Counter[int] = Counter()
    for row in rows:
        seen[row] += 1
        item = judgements.items[row]
        items.append(item if seen[row] == 1 else replace(item, id=f"{item.id}#{seen[row]}"))
    return replace(judgements, items=tuple(items), **whole_scale(judgements))


def whole_scale(judgements: "JudgementSet[Any]") -> dict[str, Any]:
    """Return scale or classes as fields of a `JudgementSet`, found in the judgements where they do not declare them."""
    if judgements.kind == "ratings":
        ratings = [item.rating for item in judgements.items]
        low = min(ratings) if judgements.low is None else judgements.low
        return {"low": low, "high": max(ratings) if judgements.high is None else judgements.high}
    if judgements.kind == "labels":
        return {"classes": judgements.classes or tuple(sorted({item.label for item in judgements.items}))}
    return {}


def _units(judgements: "JudgementSet[Any]", names: Sequence[str] | Units | None) -> Units:
    if names is None or not len(names) or isinstance(names[0], str):
        return drawing_units(judgements, names)  # type: ignore[arg-type]  # all are what the first is
    return names  # type: ignore[return-value]


def _by_clusters(units: Units, rng: np.random.Generator) -> list[int]:
    """Return rows of clusters drawn until there are as many rows as in the whole set."""
    found: dict[str, list[int]] = {}
    for row, (name,) in enumerate(units):
        found.setdefault(name, []).append(row)
    every = list(found.values())
    rows: list[int] = []
    while len(rows) < len(units):
        rows += every[int(rng.integers(len(every)))]
    return rows


def _by_texts(units: Units, rng: np.random.Generator) -> list[int]:
    """Return the rows of pairs of drawn texts, two at least."""
    drawn = resampler(units)
    while True:
        counts = drawn(rng)
        if counts.sum() > 1:
            return [int(row) for row in np.repeat(np.arange(len(units)), counts)]
