"""Explanation: which words of a text made its reward what it is, for any reward; and which words move it most over many texts."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError

Array = NDArray[np.float64]
Scorer = Callable[[Sequence[Episode]], Array]
WORD = re.compile(r"\s*\S+|\s+$")
METHODS = ("shapley", "occlusion")


@dataclass(frozen=True)
class Explanation:
    """A text cut into words, and what each adds to its reward.

    Attributes:
        prompt_words, continuation_words: The words with the space before them; joined they are the prompt and the continuation.
        attributions: (words of both,) in reward points.
        score: Of the whole text.
        baseline: Of the text without any of its words.
        residual: score − baseline − sum of the attributions; 0 up to rounding for "shapley".
        standard_error: Of each attribution, (words,); 0 where nothing was sampled.
    """

    prompt_words: tuple[str, ...]
    continuation_words: tuple[str, ...]
    attributions: Array
    score: float
    baseline: float
    standard_error: Array

    @property
    def words(self) -> tuple[str, ...]:
        """All words in order."""
        return self.prompt_words + self.continuation_words

    @property
    def residual(self) -> float:
        """What the attributions leave unexplained of the difference between text and baseline."""
        return self.score - self.baseline - float(self.attributions.sum())


def explain(score: Scorer, episode: Episode, method: str = "shapley", n_permutations: int = 64, seed: int = 0) -> Explanation:
    """Return what each word adds to the reward of one text.

    Args:
        score: `score(episodes) -> (n,)`; may be any reward.
        episode: The text.
        method: "occlusion" - the reward with all words minus the reward without this one (Zeiler and Fergus 2014, arXiv:1311.2901); fast,
            but the parts need not add up. "shapley" - the mean over random orders of what the word adds when it joins the words before it
            (Shapley 1953; sampled as in Castro et al. 2009, each order together with its reverse); the parts add up to the difference
            between text and baseline, whatever the reward.
        n_permutations: Orders drawn, at least 2; each costs as many scores as there are words.
        seed: Of the orders.

    Raises:
        InvalidArgumentError: An unknown method, too few permutations, or a text without words.
    """
    if method not in METHODS:
        raise InvalidArgumentError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if n_permutations < 2:
        raise InvalidArgumentError(f"n_permutations must be at least 2, got {n_permutations}")
    prompt, continuation = tuple(WORD.findall(episode.prompt)), tuple(WORD.findall(episode.continuation))
    n = len(prompt) + len(continuation)
    if n == 0:
        raise InvalidArgumentError("there is no word to explain: the text is empty")

    def scores(keep: NDArray[np.bool_]) -> Array:
        """Score the text with the words `keep`, (m, n)."""
        different, back = np.unique(keep, axis=0, return_inverse=True)
        found = np.asarray(score([_with_words(episode, prompt, continuation, row) for row in different]), np.float64)
        return found[back.reshape(-1)]

    ends = scores(np.array([[False] * n, [True] * n]))
    if method == "occlusion":
        attributions, error = ends[1] - scores(~np.eye(n, dtype=np.bool_)), np.zeros(n)
    else:
        attributions, error = _shapley(scores, n, n_permutations, np.random.default_rng(seed))
    return Explanation(prompt, continuation, attributions, float(ends[1]), float(ends[0]), error)


def _shapley(scores: Callable[[NDArray[np.bool_]], Array], n: int, n_permutations: int, rng: np.random.Generator) -> tuple[Array, Array]:
    half = [rng.permutation(n) for _ in range((n_permutations + 1) // 2)]
    orders = np.array([order for pair in zip(half, (h[::-1] for h in half), strict=True) for order in pair])
    place = np.argsort(orders, axis=1)  # (orders, n): when each word joins
    keep = place[:, None, :] < np.arange(n + 1)[None, :, None]  # (orders, n + 1, n)
    along = scores(keep.reshape(-1, n)).reshape(len(orders), n + 1)
    gains = np.take_along_axis(np.diff(along, axis=1), place, axis=1)
    antithetic = (gains[0::2] + gains[1::2]) / 2
    error = antithetic.std(0, ddof=1) / np.sqrt(len(antithetic)) if len(antithetic) > 1 else np.full(n, np.nan)
    return gains.mean(0), error


def _with_words(episode: Episode, prompt: tuple[str, ...], continuation: tuple[str, ...], keep: NDArray[np.bool_]) -> Episode:
    first = "".join(word for word, kept in zip(prompt, keep[: len(prompt)], strict=True) if kept)
    second = "".join(word for word, kept in zip(continuation, keep[len(prompt) :], strict=True) if kept)
    return Episode(first, second, references=episode.references, finish_reason=episode.finish_reason, metadata=episode.metadata)


@dataclass(frozen=True)
class Influence:
    """What leaving a word out changes, over all texts it occurs in.

    Attributes:
        word: In lower case, without punctuation around it.
        mean: Mean occlusion effect, reward points.
        count: Occurrences.
    """

    word: str
    mean: float
    count: int


def influential_words(score: Scorer, episodes: Sequence[Episode], min_count: int = 5) -> list[Influence]:
    """Return the words of many texts by their mean occlusion effect, the most positive first.

    Args:
        score: `score(episodes) -> (n,)`.
        episodes: Texts, at least one.
        min_count: Rarer words are left out.
    """
    effects: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        if episode.text.strip():
            found = explain(score, episode, "occlusion")
            for word, effect in zip(found.words, found.attributions.tolist(), strict=True):
                plain = word.strip().strip("\"'.,;:!?()[]*-`").lower()
                if plain:
                    effects[plain].append(effect)
    table = [Influence(word, float(np.mean(values)), len(values)) for word, values in effects.items() if len(values) >= min_count]
    return sorted(table, key=lambda influence: -influence.mean)
