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


def invented_texts(texts: Sequence[str], n: int, model: str = "reviews", sampled_share: float = 0.5, seed: int = 0) -> list[str]:
    """Return `n` new texts: part sampled from a language model, part recombined from `texts`.

    Args:
        texts: Training texts.
        n: How many.
        model: The language model: name, directory, `.gguf` file or hub id.
        sampled_share: Share of the samples, 0..1.
        seed: Of everything random.
    """
    if n < 0 or not 0 <= sampled_share <= 1:
        raise InvalidArgumentError(f"n must be at least 0 and sampled_share between 0 and 1, got {n} and {sampled_share}")
    texts = [text for text in texts if text.strip()]
    if n and not texts:
        raise InvalidArgumentError("there is no text to invent others from")
    rng = np.random.default_rng(seed)
    n_sampled = round(n * sampled_share)
    return [*sampled_texts(texts, n_sampled, model, rng), *recombined_texts(texts, n - n_sampled, rng)]


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
