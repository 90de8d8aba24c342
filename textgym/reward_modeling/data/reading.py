"""Reading: a set of judgements from a file or folder, checked whole before any of it is returned."""

import os
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.arrow_rows import data_set_rows, is_data_set, parquet_rows
from textgym.reward_modeling.data.judgements import CLASSES, JudgementError, JudgementSet, Kind
from textgym.reward_modeling.data.schema import content_id, kind_of, of_set, parse_kind, placed, typed
from textgym.reward_modeling.data.text_rows import DELIMITERS, Rows, cell_rows, json_rows

FORMATS = ".jsonl, .csv, .tsv (each also with .gz), .parquet, or a folder with a Hugging Face data set"


def read_judgements(path: str | os.PathLike[str], kind: str | None = None) -> JudgementSet[Any]:
    """Return the judgements of a file; docs/judgements.md describes the fields.

    Args:
        path: A file, its format told by the suffix (.jsonl, .csv, .tsv, each also with .gz; .parquet), or a folder written by
            `save_to_disk` of Hugging Face's datasets.
        kind: "ratings", "labels", "pairs" or "texts"; None for what the first row's fields say.

    Returns:
        The whole file's judgements; there is no partial result.

    Raises:
        InvalidArgumentError: The first fault, in one line with file, line (row for Parquet and data sets), field, value and what to do.
        MissingExtraError: Parquet or a data set without pyarrow.
    """
    path = Path(path)
    wanted = parse_kind(kind)
    found: Kind | None = wanted
    items: list[Any] = []
    places: list[str] = []
    shared: dict[str, Any] | None = None
    named: bool | None = None
    used: dict[str, int] = {}
    for place, row in _rows(path, wanted):
        try:
            found = found or kind_of(row.keys())
            values = typed(row, found)
            of_rows = of_set(values, found)
            shared = of_rows if shared is None else shared
            _check_equal(of_rows, shared, places[0] if places else place)
            named = "id" in values if named is None else named
            if named != ("id" in values):
                has, lacks = ("the first row has one", "is missing") if named else ("the first row has none", "is given")
                raise JudgementError("id", f"{lacks}, but {has}; name all judgements or none")
            if not named:
                name = content_id(values, found)
                used[name] = used.get(name, 0) + 1
                values["id"] = name if used[name] == 1 else f"{name}-{used[name]}"
            items.append(CLASSES[found](**values))
        except JudgementError as error:
            raise placed(path, place, error) from None
        places.append(place)
    if found is None or shared is None:
        raise placed(path, "line 1", JudgementError("text", "is missing: the file holds no judgements"))
    try:
        return JudgementSet(found, tuple(items), **shared)
    except JudgementError as error:
        raise placed(path, places[max(0, error.index)], error) from None


def _rows(path: Path, kind: Kind | None) -> Rows:
    if not path.exists():
        raise InvalidArgumentError(f"{path}: no such file or folder")
    if path.is_dir():
        if not is_data_set(path):
            raise InvalidArgumentError(f"{path} is a folder without a Hugging Face data set; give a file ({FORMATS})")
        return data_set_rows(path)
    suffix = format_of(path)
    if suffix == ".parquet":
        return parquet_rows(path)
    return json_rows(path) if suffix == ".jsonl" else cell_rows(path, DELIMITERS[suffix], kind)


def format_of(path: Path) -> str:
    """Return the suffix that names a file's format, without .gz.

    Raises:
        InvalidArgumentError: It names none.
    """
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".jsonl", *DELIMITERS) and (suffix != ".parquet" or path.suffix == ".gz"):
        hint = "; .json: write one object a line and call it .jsonl" if suffix in (".json", ".ndjson") else ""
        raise InvalidArgumentError(f"{path}: {path.suffix or 'no suffix'} names no format of judgements; known: {FORMATS}{hint}")
    return suffix


def _check_equal(found: dict[str, Any], first: dict[str, Any], place: str) -> None:
    for name in {**first, **found}:
        if found.get(name) != first.get(name):
            problem = f"is {found.get(name)!r} here and {first.get(name)!r} in {place}; it describes the whole set, so repeat one value"
            raise JudgementError(name, problem)
