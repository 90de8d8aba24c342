"""Conversion: ratings turned into preference pairs, or into classes."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.judgements import JudgementSet, LabelledText, PreferencePair, RatedText


@dataclass(frozen=True)
class _Bucket:
    """Texts that may be compared: one split, one prompt, one rater ("" for the mean rating), from low to high.

    `decided[i]` counts the texts that text i beats, which are the first ones; `tied[i]` the ones right before it that it ties with.
    """

    rater: str
    items: list[RatedText]
    ratings: NDArray[np.float64]
    decided: NDArray[np.int64]
    tied: NDArray[np.int64]


def ratings_to_pairs(
    judgements: JudgementSet[RatedText],
    min_gap: float = 1.0,
    max_tie_gap: float | None = None,
    per_rater: bool = False,
    max_pairs: int = 10_000,
    seed: int = 0,
) -> JudgementSet[PreferencePair]:
    """Return preference pairs of texts that continue the same prompt in the same split; `margin` is the gap in rating.

    Draw splits first: pairs of one split share texts.

    Args:
        judgements: Ratings.
        min_gap: Least gap for a preference; above 0.
        max_tie_gap: Texts at most so far apart are a tie; None for no ties. Below `min_gap`; what lies between is left out.
        per_rater: Compare what each rater said, rather than means; raters must be known.
        max_pairs: If more are possible, so many are drawn; each split has its share of texts, and in it each pair is equally likely.
        seed: Of the draw.

    Raises:
        InvalidArgumentError: Not ratings, an option out of range, or unknown raters.
    """
    _check_kind(judgements, "ratings")
    if not min_gap > 0 or not math.isfinite(min_gap):
        raise InvalidArgumentError(f"min_gap must be above 0, got {min_gap}")
    if max_tie_gap is not None and not 0 <= max_tie_gap < min_gap:
        raise InvalidArgumentError(f"max_tie_gap must be at least 0 and below min_gap ({min_gap}), got {max_tie_gap}")
    if max_pairs < 1:
        raise InvalidArgumentError(f"max_pairs must be at least 1, got {max_pairs}")
    if per_rater and not any(item.raters for item in judgements.items):
        raise InvalidArgumentError("per_rater=True needs to know who rated, but no judgement has `raters`")
    buckets = _buckets(judgements, min_gap, max_tie_gap, per_rater)
    rng = np.random.default_rng(seed)
    pairs: list[PreferencePair] = []
    splits = Counter(item.split for item in judgements.items)
    for split, n_texts in splits.items():
        pairs += _drawn([bucket for bucket in buckets if bucket.items[0].split == split], max_pairs * n_texts // len(judgements), rng)
    return JudgementSet("pairs", tuple(pair for pair in pairs if pair.tie or pair.chosen != pair.rejected))


def ratings_to_classes(
    judgements: JudgementSet[RatedText], thresholds: Sequence[float], names: Sequence[str] | None = None
) -> JudgementSet[LabelledText]:
    """Return class labels in order of rank; a rating equal to a threshold belongs to the class above it.

    Args:
        judgements: Ratings.
        thresholds: Ascending.
        names: One more than thresholds, from low to high; by default the intervals, such as "<-1", "-1..1", ">=1".

    Raises:
        InvalidArgumentError: Not ratings, thresholds that do not ascend, or the wrong number of names.
    """
    _check_kind(judgements, "ratings")
    cuts = [float(cut) for cut in thresholds]
    if not cuts or not all(map(math.isfinite, cuts)) or any(a >= b for a, b in pairwise(cuts)):
        raise InvalidArgumentError(f"thresholds must be finite and ascend, at least one, got {list(thresholds)}")
    if names is None:
        between = [f"{low:g}..{high:g}" for low, high in pairwise(cuts)]
        names = [f"<{cuts[0]:g}", *between, f">={cuts[-1]:g}"]
    if len(names) != len(cuts) + 1 or len(set(names)) != len(names):
        raise InvalidArgumentError(f"{len(cuts)} thresholds make {len(cuts) + 1} classes; give as many different names, got {list(names)}")
    items = tuple(
        LabelledText(
            id=item.id,
            prompt=item.prompt,
            source=item.source,
            group=item.group,
            split=item.split,
            metadata=item.metadata,
            text=item.text,
            label=names[bisect_right(cuts, item.rating)],
        )
        for item in judgements.items
    )
    return JudgementSet("labels", items, classes=tuple(names))


def _buckets(judgements: JudgementSet[RatedText], min_gap: float, max_tie_gap: float | None, per_rater: bool) -> list[_Bucket]:
    found: dict[tuple[str, str, str], list[tuple[float, str, RatedText]]] = {}
    for item in judgements.items:
        said = zip(item.raters, item.ratings, strict=True) if per_rater and item.raters else [] if per_rater else [("", item.rating)]
        for rater, rating in said:
            found.setdefault((item.split, item.prompt, rater), []).append((rating, item.id, item))
    buckets = []
    for (_, _, rater), rated in found.items():
        rated.sort(key=lambda entry: entry[:2])
        ratings = np.array([rating for rating, _, _ in rated])
        slack = 1e-9  # 0.3 - 0.2 falls short of 0.1
        decided = np.searchsorted(ratings, ratings - min_gap + slack, side="right")
        own = np.arange(len(rated))
        first = own if max_tie_gap is None else np.searchsorted(ratings, ratings - max_tie_gap - slack, side="left")
        buckets.append(_Bucket(rater, [item for _, _, item in rated], ratings, np.minimum(decided, own), own - np.minimum(first, own)))
    return buckets


def _drawn(buckets: list[_Bucket], max_pairs: int, rng: np.random.Generator) -> list[PreferencePair]:
    """Return all pairs of the buckets, or `max_pairs` of them without repetition."""
    starts = np.cumsum([0] + [int((bucket.decided + bucket.tied).sum()) for bucket in buckets])
    total = int(starts[-1])
    drawn = np.sort(rng.choice(total, max_pairs, replace=False)) if total > max_pairs else np.arange(total)
    places = np.searchsorted(starts, drawn, side="right") - 1
    return [_pair(buckets[b], int(n - starts[b])) for b, n in zip(places.tolist(), drawn.tolist(), strict=True)]


def _pair(bucket: _Bucket, n: int) -> PreferencePair:
    """Return the n-th of the bucket's pairs: text by text, those it beats before those it ties with."""
    ends = np.cumsum(bucket.decided + bucket.tied)
    i = int(np.searchsorted(ends, n, side="right"))
    k = n - int(ends[i] - bucket.decided[i] - bucket.tied[i])
    tie = k >= int(bucket.decided[i])
    j = i - 1 - (k - int(bucket.decided[i])) if tie else k
    better, worse = bucket.items[i], bucket.items[j]
    return PreferencePair(
        id=f"{better.id}{'=' if tie else '>'}{worse.id}" + (f"@{bucket.rater}" if bucket.rater else ""),
        prompt=better.prompt,
        source=better.source if better.source == worse.source else "",
        split=better.split,
        metadata={"chosen_id": better.id, "rejected_id": worse.id},
        chosen=better.text,
        rejected=worse.text,
        margin=float(bucket.ratings[i] - bucket.ratings[j]),
        tie=tie,
        rater=bucket.rater,
    )


def _check_kind(judgements: JudgementSet[RatedText], kind: str) -> None:
    if judgements.kind != kind:
        raise InvalidArgumentError(f"only {kind} can be converted, got {judgements.kind}")
