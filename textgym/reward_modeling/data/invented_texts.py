"""Invented texts: texts nobody has rated, made from training texts for a teacher to rate."""

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from textgym.errors import InvalidArgumentError

CLAUSE = re.compile(r".+?(?:[,.;:!?]+(?=\s)|(?=\s(?:and|but|because|though|although|while|which|who|with|yet|so)\s)|$)", re.DOTALL)
SWAPPED = 0.15  # share of the words of a recombined text that give way to others
N_BEGINNING = 4  # a sample begins with so many words of a training text, at most
MAX_NEW_TOKENS = 32  # of a sample
ROWS = 64  # samples written side by side
SHORTEST_SPAN, LONGEST_SPAN = 2, 10  # words


KINDS = ("spans", "recombined", "sampled")


def invented_texts(texts: Sequence[str], n: int, kinds: Sequence[str] = ("spans",), model: str = "reviews", seed: int = 0) -> list[str]:
    """Return `n` new texts, of each kind as many, kind by kind.

    Args:
        texts: Training texts.
        n: How many.
        kinds: "spans" (runs of words of a training text), "recombined" (the beginning of one and the end of another, some words replaced),
            "sampled" (written by a language model).
        model: The language model: name, directory, `.gguf` file or hub id.
        seed: Of everything random.
    """
    check_kinds(kinds)
    if n < 0:
        raise InvalidArgumentError(f"n must be at least 0, got {n}")
    texts = [text for text in texts if text.strip()]
    if n and not texts:
        raise InvalidArgumentError("there is no text to invent others from")
    rng = np.random.default_rng(seed)
    found: list[str] = []
    for i, kind in enumerate(kinds):
        share = n * (i + 1) // len(kinds) - n * i // len(kinds)
        if kind == "sampled":
            found += sampled_texts(texts, share, model, rng)
        else:
            found += (span_texts if kind == "spans" else recombined_texts)(texts, share, rng)
    return found


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise unless every kind is known and there is one."""
    if not kinds or not set(kinds) <= set(KINDS):
        raise InvalidArgumentError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(map(repr, kinds)) or 'none'}")


def span_texts(texts: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """Return `n` runs of two to ten words of `texts`: what people say in part of a sentence (Socher et al. 2013 have phrases rated, too)."""
    split = [text.split() for text in texts]
    found = []
    for i in rng.integers(0, len(split), n):
        length = int(rng.integers(SHORTEST_SPAN, LONGEST_SPAN + 1))
        start = int(rng.integers(0, max(0, len(split[i]) - length) + 1))
        found.append(" ".join(split[i][start : start + length]))
    return found


def sampled_texts(texts: Sequence[str], n: int, model: str, rng: np.random.Generator) -> list[str]:
    """Return `n` texts that begin like one of `texts`, one to four words, and go on as the language model likes."""
    from textgym.agent import make_agent
    from textgym.tasks import Task

    if not n:
        return []
    prompts = []
    for i in rng.integers(0, len(texts), n):
        words = texts[i].split()
        prompts.append(" ".join(words[: rng.integers(1, N_BEGINNING + 1)]))
    task = Task("invented-texts", {"train": prompts}, model, MAX_NEW_TOKENS, reward=_unscored)
    writer = make_agent("base", task, model=model)
    return writer.generate(prompts, MAX_NEW_TOKENS, seed=int(rng.integers(2**31)), batch_size=ROWS)


def recombined_texts(texts: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """Return `n` texts made of the first clauses of one text and the last of another, some words replaced.

    A word gives way to one that some text has after the same word; so every two neighbours were neighbours before, or nearly.
    """
    clauses = [CLAUSE.findall(text) or [text] for text in texts]
    after: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        words = text.split()
        for word, follower in itertools.pairwise(words):
            after[word].append(follower)
    found: list[str] = []
    while len(found) < n:
        first, second = clauses[rng.integers(len(clauses))], clauses[rng.integers(len(clauses))]
        joined = "".join(first[: rng.integers(1, len(first) + 1)]).rstrip() + " " + "".join(second[rng.integers(len(second)) :]).lstrip()
        words = joined.split()
        for i in range(1, len(words)):
            followers = after.get(words[i - 1])
            if followers and rng.random() < SWAPPED:
                words[i] = followers[rng.integers(len(followers))]
        if words:
            found.append(" ".join(words))
    return found


def _unscored(episodes: Sequence[object]) -> list[float]:
    return [0.0] * len(episodes)
