"""The reward "novelty": how much of a continuation cannot be found in a corpus."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import textgym
from textgym_plugins.human_ratings import human_ratings
from textgym_plugins.repetition import WORD


class Novelty:
    """Share of the continuation's word n-grams that a corpus does not have; 0 (all are copied) .. 1 (all are new).

    Args:
        corpus: A UTF-8 text file, one text a line; None for the bundled sentences that people rated (training split).
        n: Words in an n-gram; words are lower-cased runs of letters and digits, and single punctuation marks.

    An n-gram counts as often as it occurs. A continuation with fewer than `n` words has nothing new and scores 0. The corpus is kept as
    eight bytes per n-gram (a hash: of 10**6 n-grams one in 10**13 is mistaken for another). Nonsense is new as well: have "log-prob" or a
    rating beside it.

    Source: the share of generated n-grams not seen in training, as in McCoy et al. (2023), "How Much Do Language Models Copy From Their
    Training Data?", arXiv:2111.09509.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "MIT"

    def __init__(self, corpus: str | None = None, n: int = 3) -> None:
        if n < 1:
            raise textgym.InvalidArgumentError(f"novelty: n must be at least 1, got {n}")
        self.n = n
        texts = _rated_sentences() if corpus is None else _lines(Path(corpus))
        self._known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(_hashes(text, n) for text in texts)]))  # sorted

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the shares of new n-grams, (n,), in 0..1."""
        return [self._new_share(_hashes(episode.continuation, self.n)) for episode in episodes]

    def _new_share(self, grams: NDArray[np.uint64]) -> float:
        if not len(grams) or not len(self._known):
            return float(len(grams) > 0)
        places = np.searchsorted(self._known, grams).clip(max=len(self._known) - 1)
        return float(np.mean(self._known[places] != grams))


def _hashes(text: str, n: int) -> NDArray[np.uint64]:
    """Return a 64-bit hash per n-gram of `text`, the same in every process, (n-grams,)."""
    words = WORD.findall(text.lower())
    grams = (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return np.frombuffer(b"".join(blake2b(g.encode("utf-8", "surrogatepass"), digest_size=8).digest() for g in grams), np.uint64)


def _rated_sentences() -> Iterator[str]:
    return (item.text for item in human_ratings().split("train").items)


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise textgym.InvalidArgumentError(f"novelty: cannot read the corpus {str(path)!r}: {error}") from None


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "novelty"."""
    register("novelty", Novelty)
