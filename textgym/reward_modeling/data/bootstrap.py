"""Bootstrap: judgements drawn anew, with replacement, those that hang together drawn together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.data.splits import cluster_names


def bootstrapped(judgements: "JudgementSet[Any]", rng: np.random.Generator, names: Sequence[str] | None = None) -> "JudgementSet[Any]":
    """Return as many judgements, about, as there are, drawn by whole clusters (Efron 1979; clusters as in Field and Welsh 2007).

    A cluster are the judgements that share a group or near-duplicate texts (`splits.cluster_names`): drawn one by one, a text would seem to
    be confirmed by its own copies. A judgement that is drawn again gets another id. Scale and classes are those of the whole set.

    Args:
        judgements: Of one split, at least one.
        rng: What the draw depends on.
        names: Name of each judgement's cluster; None to find them, which takes seconds for ten thousand texts.
    """
    clusters: dict[str, list[int]] = {}
    for row, name in enumerate(names if names is not None else cluster_names(judgements)):
        clusters.setdefault(name, []).append(row)
    found = list(clusters.values())
    items: list[Any] = []
    seen: dict[int, int] = {}
    while len(items) < len(judgements):
        for row in found[int(rng.integers(len(found)))]:
            times = seen[row] = seen.get(row, 0) + 1
            item = judgements.items[row]
            items.append(item if times == 1 else replace(item, id=f"{item.id}#{times}"))
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
