"""Splits: which judgements train, validate and test - drawn by name, near-duplicates together."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.disjoint_sets import DisjointSets
from textgym.reward_modeling.data.judgements import JudgementSet, Split, texts_of
from textgym.reward_modeling.data.near_duplicates import THRESHOLD, clusters, near_duplicates

FRACTIONS: Mapping[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


def assign_splits(
    judgements: JudgementSet[Any], fractions: Mapping[Split, float] = FRACTIONS, seed: int = 0, threshold: float = THRESHOLD
) -> JudgementSet[Any]:
    """Return the judgements with new splits.

    A judgement's split is a function of its cluster's name and the seed, whatever the order of the judgements. A cluster are the
    judgements that share a group, or near-duplicate texts, directly or through others; its name is the first group or id in it. So
    fractions are met in expectation, and a small set may miss them.

    Convert ratings to pairs after drawing splits: pairs that share texts belong together.

    Args:
        judgements: Their present splits are ignored.
        fractions: Share of each split; together 1.
        seed: Of the draw.
        threshold: Jaccard similarity (five-character shingles) from which texts are near-duplicates.

    Raises:
        InvalidArgumentError: Fractions that are none, or all judgements hang together.
    """
    shares = _checked(fractions)
    if not 0 < threshold <= 1:
        raise InvalidArgumentError(f"threshold must be above 0 and at most 1, got {threshold}")
    names = cluster_names(judgements, threshold)
    if len(judgements) > 1 and len(shares) > 1 and len(set(names)) == 1:
        raise InvalidArgumentError(
            f"all {len(judgements)} judgements hang together by group or near-duplicate texts and cannot be split; "
            "split ratings before converting them to pairs, or fill in the field `split` yourself"
        )
    items = tuple(replace(item, split=_drawn(name, shares, seed)) for item, name in zip(judgements.items, names, strict=True))
    return replace(judgements, items=items)


def cluster_names(judgements: JudgementSet[Any], threshold: float = THRESHOLD) -> list[str]:
    """Return a name per judgement, equal for those that must stay in one split."""
    sets = DisjointSets(len(judgements))
    places = {item.id: n for n, item in enumerate(judgements.items)}
    groups: dict[str, int] = {}
    texts: list[str] = []
    owners: list[int] = []
    for n, item in enumerate(judgements.items):
        if item.group:
            sets.join(n, groups.setdefault(item.group, n))
        for origin in _origins(item, places):
            sets.join(n, places[origin])
        for text in texts_of(item):
            texts.append(text)
            owners.append(n)
    for place, other in enumerate(clusters(texts, threshold)):
        sets.join(owners[place], owners[other])
    named: dict[int, str] = {}
    originals_first = sorted(enumerate(judgements.items), key=lambda entry: bool(_origins(entry[1], places)))
    for n, item in originals_first:
        if sets.root(n) in named and _origins(item, places):
            continue  # what was made from others must not change their cluster's name, and so its split
        own = f"group {item.group}" if item.group else f"id {item.id}"
        named[sets.root(n)] = min(named.get(sets.root(n), own), own)
    return [named[sets.root(n)] for n in range(len(judgements))]


def _origins(item: Any, places: Mapping[str, int]) -> list[str]:
    """Return the ids of the judgements of the set that one was made from by augmentation; none for an original."""
    if "augmented" not in item.metadata:
        return []
    told = item.metadata.get("from")
    several = told if isinstance(told, (list, tuple)) else [told]
    return [origin for origin in several if isinstance(origin, str) and origin in places and origin != item.id]


def crossing_clusters(judgements: JudgementSet[Any], threshold: float = THRESHOLD) -> list[list[str]]:
    """Return the ids of each cluster (a group, or near-duplicates, chained) whose judgements are in different splits."""
    found: dict[str, list[Any]] = {}
    for item, name in zip(judgements.items, cluster_names(judgements, threshold), strict=True):
        found.setdefault(name, []).append(item)
    return [[item.id for item in items] for items in found.values() if len({item.split for item in items}) > 1]


def crossing_near_duplicates(judgements: JudgementSet[Any], threshold: float = THRESHOLD) -> list[tuple[str, str]]:
    """Return the ids of near-duplicates (first and another of equal texts; any two of similar ones) that are in different splits."""
    texts, owners = [], []
    for item in judgements.items:
        for text in texts_of(item):
            texts.append(text)
            owners.append(item)
    pairs = ((owners[i], owners[j]) for i, j in near_duplicates(texts, threshold))
    return [(a.id, b.id) for a, b in pairs if a.split != b.split]


def _drawn(name: str, shares: Mapping[Split, float], seed: int) -> Split:
    place = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
    total, split = 0.0, next(iter(shares))
    for split, share in shares.items():
        total += share
        if place < total:
            return split
    return split


def _checked(fractions: Mapping[Split, float]) -> dict[Split, float]:
    known = [name for name in get_args(Split) if name]
    unknown = [name for name in fractions if name not in known]
    if unknown:
        raise InvalidArgumentError(f"fractions must be of {', '.join(known)}, got {unknown[0]!r}")
    if any(not 0 <= share <= 1 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise InvalidArgumentError(f"fractions must be at least 0 and sum to 1, got {dict(fractions)}")
    return {name: fractions[name] for name in known if fractions.get(name)}  # in one order, so that equal fractions draw equal splits
