"""Training texts: what a model was fitted on, kept in its folder as short hashes, so that nobody measures it on them unawares."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textgym.files import write_text
from textgym.reward_modeling.data.judgements import texts_of
from textgym.reward_modeling.data.near_duplicates import normalised

FILE = "training_texts.txt"
DIGITS = 10  # hexadecimal ones: of a million texts one or two in a million would be taken for one of a million others


def keys(items: Iterable[Any]) -> frozenset[str]:
    """Return the hashes of the texts of judgements: of letters and digits alone, so spelling variants of one text have one."""
    return frozenset(_key(text) for item in items for text in texts_of(item))


def n_known(items: Iterable[Any], known: frozenset[str]) -> int:
    """Return how many judgements are of a text, or of one of two, whose hash is known."""
    return sum(any(_key(text) in known for text in texts_of(item)) for item in items) if known else 0


def ids_hash(items: Iterable[Any]) -> str:
    """Return one hash over the ids of judgements, in whatever order."""
    return hashlib.sha256("\n".join(sorted(item.id for item in items)).encode()).hexdigest()


def write_keys(folder: Path, known: frozenset[str]) -> None:
    """Write the hashes, one a line, sorted."""
    write_text(folder / FILE, "".join(f"{key}\n" for key in sorted(known)))


def read_keys(folder: Path) -> frozenset[str]:
    """Return what `write_keys` wrote."""
    return frozenset((folder / FILE).read_text(encoding="utf-8").split())


def _key(text: str) -> str:
    return hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
