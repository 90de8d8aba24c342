"""Declaration: what a reward model says of itself - range, version, licence, needs - as attributes that it may have."""

import math
from dataclasses import dataclass
from typing import Any

from textgym.errors import InvalidArgumentError


@dataclass(frozen=True)
class Declaration:
    """What a reward model declares; whatever it leaves out has the value given here.

    Attributes:
        low, high: The range of its scores.
        version: Changes whenever scores change; part of the cache's key.
        license: Of the model and its data, an SPDX identifier.
        needs_references: True if it cannot score an episode without reference texts.
        deterministic: False if equal episodes may get different scores.
        min_texts_per_second: The speed below which a conformance check calls it slow.
        reads_tokens: True if its scores depend on token ids, not on texts alone; a cache then keeps them apart.
    """

    low: float = -math.inf
    high: float = math.inf
    version: str = ""
    license: str = ""
    needs_references: bool = False
    deterministic: bool = True
    min_texts_per_second: float = 10.0
    reads_tokens: bool = False


def declaration_of(model: Any) -> Declaration:
    """Return what `model` declares; raises for a range that is empty or no pair of numbers."""
    default = Declaration()
    found = {name: getattr(model, name, getattr(default, name)) for name in Declaration.__dataclass_fields__}
    try:
        low, high, speed = (float(found[name]) for name in ("low", "high", "min_texts_per_second"))
    except (TypeError, ValueError):
        declared = [found[name] for name in ("low", "high", "min_texts_per_second")]
        raise InvalidArgumentError(f"low, high and min_texts_per_second must be numbers, got {declared!r:.80}") from None
    if not low < high:
        raise InvalidArgumentError(f"the declared range must go upwards, got {low} to {high}")
    return Declaration(
        low,
        high,
        str(found["version"]),
        str(found["license"]),
        bool(found["needs_references"]),
        bool(found["deterministic"]),
        speed,
        bool(found["reads_tokens"]),
    )
