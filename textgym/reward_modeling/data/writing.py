"""Writing: a set of judgements into a file or folder, whole or not at all."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError, RunDirectoryError
from textgym.files import replaced_folder, write_bytes
from textgym.reward_modeling.data.arrow_rows import fill_data_set, is_data_set, write_parquet
from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.data.reading import format_of
from textgym.reward_modeling.data.schema import rows_of
from textgym.reward_modeling.data.text_rows import DELIMITERS, MAX_LINE


def write_judgements(judgements: JudgementSet[Any], path: str | os.PathLike[str]) -> None:
    """Write judgements so that `read_judgements` returns an equal set; an older file is replaced only at the end.

    Args:
        judgements: At least one.
        path: Its suffix names the format, as for `read_judgements`; without a suffix, a folder with a Hugging Face data set.

    Raises:
        InvalidArgumentError: No judgements, an unknown suffix, or a value that the formats cannot hold; nothing was written.
        RunDirectoryError: The file cannot be written.
        MissingExtraError: Parquet or a data set without pyarrow.
    """
    path = Path(path)
    if not judgements.items:
        raise InvalidArgumentError(f"{path}: not written, for there are no judgements")
    if not path.suffix or path.is_dir():
        if path.exists() and not (path.is_dir() and (is_data_set(path) or not any(path.iterdir()))):
            raise RunDirectoryError(f"cannot write {path}: it exists and is no Hugging Face data set; give another name")
        rows_of(judgements)  # a fault must show before anything is written
        with replaced_folder(path) as folder:
            fill_data_set(judgements, folder)
        return
    suffix = format_of(path)
    if suffix == ".parquet":
        write_bytes(path, write_parquet(judgements))
        return
    rows = rows_of(judgements)
    text = _json_lines(rows) if suffix == ".jsonl" else _table(rows, DELIMITERS[suffix])
    data = text.encode()
    if len(data) > MAX_LINE and max(map(len, data.split(b"\n"))) >= MAX_LINE:
        raise InvalidArgumentError(f"{path}: not written, for a line would be longer than {MAX_LINE:,} bytes; shorten the text")
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _json_lines(rows: list[dict[str, Any]]) -> str:
    kept = ({name: _short(value) for name, value in row.items() if value is not None} for row in rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)


def _table(rows: list[dict[str, Any]], delimiter: str) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")  # as RFC 4180; cells that hold either are quoted
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])
    return file.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(_short(value), ensure_ascii=False)


def _short(value: Any) -> Any:
    """Return whole numbers without their ".0"; reading makes them numbers again."""
    if isinstance(value, list):
        return [_short(v) for v in value]
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 2**53 else value
