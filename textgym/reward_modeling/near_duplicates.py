"""Near-duplicates: which texts are equal but for a few characters."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

SHINGLE = 5  # characters
THRESHOLD = 0.8  # Jaccard similarity from which two texts are near-duplicates
WORD = re.compile(r"[^\W_]+")


def normalised(text: str) -> str:
    """Return the text's letters and digits, case folded, one space between words; a text without any comes back stripped."""
    return " ".join(WORD.findall(text.casefold())) or text.strip()


def shingles(text: str) -> frozenset[str]:
    """Return the runs of `SHINGLE` characters of the normalised text; a shorter text is its own only one."""
    plain = normalised(text)
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(first: str, second: str) -> float:
    """Return the share of shingles that two texts have in common, 0..1."""
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> Iterator[tuple[int, int]]:
    """Yield every pair of texts whose Jaccard similarity reaches the threshold, except that equal shingles are only chained.

    The search is exact: unlike with random hashes, no pair is missed. Texts whose shingles are equal are joined to the first of them,
    and only that one is compared with others. Two sets with Jaccard similarity t must share one of the |x| - ceil(t |x|) + 1 rarest
    members of each, so only texts that do are compared (Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search").

    Args:
        texts: Any number; 20,000 sentences take seconds.
        threshold: In (0, 1].

    Yields:
        Places (earlier or later) of two texts.
    """
    number: dict[str, int] = {}
    sets: list[frozenset[int]] = []
    where: list[int] = []
    first: dict[frozenset[int], int] = {}
    for place, text in enumerate(texts):
        members = frozenset(number.setdefault(shingle, len(number)) for shingle in shingles(text))
        if first.setdefault(members, place) != place:
            yield first[members], place
            continue
        sets.append(members)
        where.append(place)
    count = np.zeros(len(number), np.int64)
    for members in sets:
        count[list(members)] += 1
    rank = np.empty_like(count)
    rank[np.argsort(count, kind="stable")] = np.arange(len(count))
    rare: dict[int, list[int]] = {}
    for n in sorted(range(len(sets)), key=lambda n: len(sets[n])):  # from small to large, so that those indexed are never larger
        members, size = sets[n], len(sets[n])
        ids = np.fromiter(members, np.int64, size)
        prefix = ids[np.argsort(rank[ids], kind="stable")[: size - _at_least(threshold * size) + 1]].tolist()
        candidates = {m for i in prefix for m in rare.get(i, ()) if len(sets[m]) >= threshold * size}
        for m in sorted(candidates):
            common = len(members & sets[m])
            if common >= threshold * (size + len(sets[m]) - common):
                yield where[m], where[n]
        for i in prefix:
            if count[i] > 1:
                rare.setdefault(i, []).append(n)


def _at_least(value: float) -> int:
    """Return the smallest integer not below a product that floating point may have put a hair too high."""
    return int(np.ceil(value - 1e-9))
