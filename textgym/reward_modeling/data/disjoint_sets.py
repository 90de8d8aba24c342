"""DisjointSets: which of n items hang together, as pairs of them are joined one after the other."""


class DisjointSets:
    """A union-find forest with path halving (Tarjan 1975) over the items 0 ... n − 1; each is alone at first."""

    def __init__(self, n: int) -> None:
        self._parents = list(range(n))

    def root(self, item: int) -> int:
        """Return the item that stands for the set of `item`."""
        parents = self._parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, item: int, other: int) -> None:
        """Put the set of `item` into that of `other`, whose root stands for both."""
        self._parents[self.root(item)] = self.root(other)
