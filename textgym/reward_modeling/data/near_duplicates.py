"""Near-duplicates: which texts are equal but for a few characters."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from textgym.reward_modeling.data.disjoint_sets import DisjointSets

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
    and only that one is compared with others. There may be as many pairs as the square of the texts; `clusters` does not list them.

    Args:
        texts: Any number.
        threshold: In (0, 1].

    Yields:
        Places (in no order) of two texts.
    """
    index = _Index(texts, threshold)
    yield from index.equal
    rare: dict[int, list[int]] = {}
    for n in index.by_size:
        prefix = index.prefix(n)
        for m in sorted({m for i in prefix for m in rare.get(i, ())}):
            if index.similar(m, n):
                yield index.places[m], index.places[n]
        for i in prefix:
            rare.setdefault(i, []).append(n)


def clusters(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """Return for each text the place of one that it hangs together with through near-duplicates: the same for a whole cluster.

    Texts of one cluster are not compared with each other again, so that thousands of texts from one template cost little.
    """
    index = _Index(texts, threshold)
    sets = DisjointSets(len(texts))
    for first, second in index.equal:
        sets.join(second, first)
    rare: dict[int, dict[int, list[int]]] = {}  # shingle → a text of a cluster → the sets of that cluster that have the shingle
    for n in index.by_size:
        own = index.places[n]
        prefix = index.prefix(n)
        tried: set[int] = set()
        for i in prefix:
            for member, others in rare.get(i, {}).items():
                if sets.root(member) == sets.root(own):
                    continue
                for m in others:
                    if m not in tried and index.similar(m, n):
                        sets.join(own, member)
                        break
                    tried.add(m)
        for i in prefix:
            found = rare.setdefault(i, {})
            if len(found) > 1:  # some may have become one cluster since
                merged: dict[int, list[int]] = {}
                for member, others in found.items():
                    merged.setdefault(sets.root(member), []).extend(others)
                found = rare[i] = merged
            found.setdefault(sets.root(own), []).append(n)
    return [sets.root(n) for n in range(len(texts))]


class _Index:
    """The different sets of shingles of some texts, so ordered that only few need be compared.

    Two sets with Jaccard similarity t must share one of the |x| - ceil(t |x|) + 1 rarest members of each, their prefixes (Bayardo, Ma and
    Srikant 2007, "Scaling up all pairs similarity search"), and sizes that differ by more than the factor t are never so similar.

    Attributes:
        equal: Places of the first text with a set of shingles and of another one with the same.
        sets: The different sets.
        places: Of the first text with each.
        by_size: Numbers of the sets, from small to large.
    """

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self.threshold = threshold
        self.equal: list[tuple[int, int]] = []
        self.sets: list[frozenset[int]] = []
        self.places: list[int] = []
        number: dict[str, int] = {}
        first: dict[frozenset[int], int] = {}
        for place, text in enumerate(texts):
            members = frozenset(number.setdefault(shingle, len(number)) for shingle in shingles(text))
            if first.setdefault(members, place) != place:
                self.equal.append((first[members], place))
            else:
                self.sets.append(members)
                self.places.append(place)
        self._count = np.zeros(len(number), np.int64)
        for members in self.sets:
            self._count[list(members)] += 1
        self._rank = np.empty_like(self._count)
        self._rank[np.argsort(self._count, kind="stable")] = np.arange(len(self._count))
        self.by_size = sorted(range(len(self.sets)), key=lambda n: len(self.sets[n]))

    def prefix(self, n: int) -> list[int]:
        """Return the rarest members of a set, those left out that no other set has."""
        members = self.sets[n]
        size = len(members)
        ids = np.fromiter(members, np.int64, size)
        length = size - int(np.ceil(self.threshold * size - 1e-9)) + 1  # the product may be a hair too large
        rarest = ids[np.argsort(self._rank[ids], kind="stable")[:length]]
        found: list[int] = rarest[self._count[rarest] > 1].tolist()
        return found

    def similar(self, smaller: int, larger: int) -> bool:
        """Return True if the similarity of two sets reaches the threshold."""
        a, b = self.sets[smaller], self.sets[larger]
        if len(a) < self.threshold * len(b) - 1e-9:
            return False
        common = len(a & b)
        return common >= self.threshold * (len(a) + len(b) - common)
