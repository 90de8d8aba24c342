"""Judgement source: the set of human judgements behind a registered name or a file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError, UnknownNameError
from textgym.plugin_manager import installed_plugins
from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.data.reading import read_judgements


def load_judgements(source: str | os.PathLike[str]) -> "JudgementSet[Any]":
    """Return the judgements of a registered name ("human-ratings"), or of a file or data-set folder.

    Raises:
        UnknownNameError: There is neither such a name nor such a path.
        InvalidArgumentError: The file holds no judgements that can be read; the line says where.
    """
    name = os.fspath(source)
    known = installed_plugins().registrations("judgement")
    if name in known:
        found: JudgementSet[Any] = installed_plugins().make("judgement", name, {})
        return found
    if not Path(name).exists():
        raise UnknownNameError("set or file of judgement", name, known)
    return read_judgements(name)


def sample(judgements: "JudgementSet[Any]", n: int) -> "JudgementSet[Any]":
    """Return at most `n` judgements of each split, evenly spaced over it."""
    if n < 1:
        raise InvalidArgumentError(f"a sample needs at least 1 judgement of each split, got {n}")
    kept = []
    for split in dict.fromkeys(item.split for item in judgements.items):
        part = judgements.split(split).items
        kept += [part[i * len(part) // min(n, len(part))] for i in range(min(n, len(part)))]
    return replace(judgements, items=tuple(kept))


def undeclared_order(judgements: "JudgementSet[Any]") -> str | None:
    """Return a line that tells in which order classes count that nobody ranked; None where somebody did, or where there are but two."""
    names = sorted({item.label for item in judgements.items}) if judgements.kind == "labels" and not judgements.classes else []
    if len(names) < 3:
        return None
    return f"classes by name, for the judgements do not rank them: {' < '.join(names)}; to rank them give every row the field `classes`"
