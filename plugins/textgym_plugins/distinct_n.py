"""The reward "distinct-n": how varied the words of a continuation are."""

from collections.abc import Sequence
from typing import Any

import textgym
from textgym_plugins.repetition import WORD, repeated_share


class DistinctN:
    """Share of the continuation's word n-grams that are different; 0 (none at all) .. 1 (no n-gram occurs twice).

    `n` words (2) make an n-gram; words are lower-cased runs of letters and digits, and single punctuation marks. A continuation with fewer
    than `n` words has no n-gram and scores 0. The share falls with length, whoever writes: compare texts of one length.

    Source: Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation Models", arXiv:1510.03055; there over all
    the texts of a system, here inside one text, since a reward does not depend on the other episodes of its batch.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, n: int = 2) -> None:
        if n < 1:
            raise textgym.InvalidArgumentError(f"distinct-n: n must be at least 1, got {n}")
        self.n = n

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the shares of different n-grams, (n,), in 0..1."""
        texts = [WORD.findall(episode.continuation.lower()) for episode in episodes]
        return [1.0 - repeated_share(words, self.n) if len(words) >= self.n else 0.0 for words in texts]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "distinct-n"."""
    register("distinct-n", DistinctN)
