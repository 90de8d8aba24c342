"""Columns of a data set as references and metadata of an episode: the one rule that every adapter shares."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from textgym.errors import InvalidArgumentError
from textgym.rewards.declaration import declaration_of
from textgym.rewards.reward import Reward
from textgym.tasks import Prompt

REFERENCES, METADATA = "references", "metadata"


def read_references(value: Any) -> tuple[str, ...]:
    """Return the reference texts in a cell: one text, a list of texts, or None for none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise InvalidArgumentError(f"references are a text or a list of texts, got {value!r:.120}")


def read_metadata(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a row: its cells by column; what a column "metadata" holds, as a mapping or as JSON, stands beside them."""
    metadata = {name: value for name, value in cells.items() if name != METADATA}
    packed = cells.get(METADATA)
    if isinstance(packed, str) and packed.lstrip().startswith("{"):
        try:
            packed = json.loads(packed)
        except json.JSONDecodeError as error:
            raise InvalidArgumentError(f"the metadata {packed!r:.120} is not JSON: {error}") from None
    if isinstance(packed, Mapping):
        return {**metadata, **packed}
    return metadata if packed is None else {**metadata, METADATA: packed}


def row_of(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as a row of plain data: "prompt", "references", and "metadata" as JSON, without what JSON would change."""
    kept = {}
    for name, value in prompt.metadata.items():
        try:
            if json.loads(json.dumps(value)) == value:
                kept[name] = value
        except (TypeError, ValueError):
            continue
    return {"prompt": prompt.text, REFERENCES: list(prompt.references), METADATA: json.dumps(kept, ensure_ascii=False)}


def check_references(reward: Reward, column: str, columns: Sequence[str]) -> None:
    """Raise if a reward needs reference texts and the column that should hold them is not there."""
    needing = [term.name for term in reward.terms if declaration_of(term.model).needs_references]
    if needing and column not in columns:
        raise InvalidArgumentError(
            f"reward {needing[0]!r} needs reference texts, and there is no column {column!r} among {', '.join(columns) or 'none'}: "
            f"name the one that holds them with references_column="
        )
