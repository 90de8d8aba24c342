"""The reward "repetition": how much a continuation repeats itself, to be used with a negative weight."""

import re
from collections.abc import Sequence
from typing import Any

import textgym

WORD = re.compile(r"\w+|[^\w\s]")
LONGEST = 4  # words in an n-gram


def repeated_share(words: Sequence[str], n: int) -> float:
    """Return seq-rep-n, 1 - distinct n-grams / n-grams; 0 where there is no n-gram."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


class Repetition:
    """Degree of degeneration of the continuation; 0 (no n-gram occurs twice) .. 1 (empty).

    1 - (1 - seq-rep-1)(1 - seq-rep-2)(1 - seq-rep-3)(1 - seq-rep-4), where seq-rep-n is the share of word n-grams that occurred before;
    words are runs of letters and digits, lower-cased, and single punctuation marks. A common word used twice costs a little, a phrase
    used twice much more, since it repeats at every n. A text without a word or mark is degenerate: 1. The first 24 words of sentences
    that people wrote (the test split of the human ratings) reach 0.14 on average, 95 % of them less than 0.29.

    Sources: seq-rep-n of Welleck et al. (2019), "Neural Text Generation with Unlikelihood Training", arXiv:1908.04319; combined as the
    complement of the diversity of Su et al. (2022), "A Contrastive Framework for Neural Text Generation", arXiv:2202.06417, with n = 1.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the degrees of degeneration, (n,), in 0..1."""
        return [degeneration(episode.continuation) for episode in episodes]


def degeneration(text: str) -> float:
    """Return the degree of degeneration of one text, in 0..1."""
    words = WORD.findall(text.lower())
    if not words:
        return 1.0
    distinct = 1.0
    for n in range(1, LONGEST + 1):
        distinct *= 1.0 - repeated_share(words, n)
    return 1.0 - distinct


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "repetition"."""
    register("repetition", Repetition)
