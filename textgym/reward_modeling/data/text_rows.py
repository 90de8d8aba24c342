"""Text rows: judgements as lines of JSON or as a table of cells (CSV, TSV), plain or gzipped, each row with its line number."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from textgym.reward_modeling.data.judgements import JudgementError, Kind
from textgym.reward_modeling.data.schema import NAME, SCHEMAS, Type, check_names, kind_of, parse_json, placed

MAX_LINE = 2**24  # bytes; a longer line is a file of another format
DELIMITERS = {".csv": ",", ".tsv": "\t"}
NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
FLAGS = {"true": True, "false": False, "1": True, "0": False}

Rows = Iterator[tuple[str, dict[str, Any]]]


def json_rows(path: Path) -> Rows:
    """Yield the place and the fields of each line; blank lines are passed over.

    Raises:
        InvalidArgumentError: A line that is not a JSON object, with its number.
    """
    for number, raw in _raw_lines(path):
        place = f"line {number}"
        try:
            line = _decoded(raw, number, lambda before: (NAME.findall(before) or [""])[-1])
            if not line.strip():
                continue
            row = parse_json(line)
            if not isinstance(row, dict):
                raise JudgementError("", "expected a JSON object, such as " + '{"text": "A delight.", "rating": 4}')
        except JudgementError as error:
            raise placed(path, place, error) from None
        yield place, row


def cell_rows(path: Path, delimiter: str, kind: Kind | None) -> Rows:
    """Yield the place (the line on which it begins) and the fields of each row; an empty cell is None.

    Cells are quoted as in RFC 4180, so they may hold delimiters and line breaks; lists and objects stand in them as JSON.

    Args:
        path: Its first row names the fields.
        delimiter: Between cells.
        kind: Of judgement; None for what the fields say.

    Raises:
        InvalidArgumentError: A row that cannot be read, with its line.
    """
    header: list[str] = []
    types: list[Type] = []

    def field_of(before: str) -> str:
        cells = list(csv.reader([before], delimiter=delimiter))
        n = len(cells[0]) if cells else 1
        return header[n - 1] if 0 < n <= len(header) else ""

    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, raw in _raw_lines(path):  # the place of a fault
            yield _decoded(raw, number, field_of)

    with _field_limit(MAX_LINE):
        reader = csv.reader(lines(), delimiter=delimiter, strict=True)
        while True:
            start = number + 1
            try:
                cells = next(reader, None)
                if cells is None:
                    return
                if not cells:
                    continue
                if not header:
                    header += cells
                    kind = _check_header(header, delimiter, kind)
                    by_name = {field.name: field.type for field in SCHEMAS[kind]}
                    types += [by_name[name] for name in header]
                    continue
                _check_width(cells, header)
                row = {name: _value(name, cell, type_) for name, cell, type_ in zip(header, cells, types, strict=True)}
            except csv.Error as error:
                problem = f"the row's quotes or line breaks are wrong ({error}); quote cells with \" and double the quotes inside"
                raise placed(path, f"line {start}", JudgementError("", problem)) from None
            except JudgementError as error:
                # a line that is not UTF-8 is the fault of its own line, not of the row's first
                raise placed(path, f"line {number if error.index == number else start}", error) from None
            yield f"line {start}", row


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        file: BinaryIO = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[assignment]  # noqa: SIM115
        with file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    problem = f"longer than {MAX_LINE:,} bytes; is this a file of judgements, one a line?"
                    raise placed(path, f"line {number}", JudgementError("", problem))
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"the compressed data are damaged or cut short ({str(error).rstrip('.')}); get the file again"
        raise placed(path, f"line {number + 1}", JudgementError("", problem)) from None
    except OSError as error:
        raise placed(path, f"line {number + 1}", JudgementError("", f"cannot be read: {error.strerror or error}")) from None


def _decoded(raw: bytes, number: int, field_of: Any) -> str:
    """Return a line's text; a byte order mark at the file's start is dropped."""
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode(errors="replace")
        problem = f"byte {error.start + 1} of the line (0x{error.object[error.start]:02x}) is not UTF-8; save the file as UTF-8"
        raise JudgementError(field_of(before), problem, number) from None


def _check_header(header: list[str], delimiter: str, kind: Kind | None) -> Kind:
    others = [d for d in (",", ";", "\t") if d != delimiter and d in header[0]]
    if len(header) == 1 and others:
        raise JudgementError(header[0], f"looks like several fields separated by {others[0]!r}; this format separates by {delimiter!r}")
    for name in header:
        if header.count(name) > 1:
            raise JudgementError(name, "names two columns; keep one")
        if not name.strip():
            raise JudgementError(name, f"column {header.index(name) + 1} has no name; leave it out (pandas: index=False)")
    kind = kind or kind_of(header)
    check_names(header, kind)
    return kind


def _check_width(cells: list[str], header: list[str]) -> None:
    if len(cells) < len(header):
        raise JudgementError(header[len(cells)], f"has no cell: the row has {len(cells)} cells for {len(header)} fields")
    if len(cells) > len(header):
        problem = (
            f"is followed by more cells: the row has {len(cells)} cells for {len(header)} fields; quote a cell that holds the delimiter"
        )
        raise JudgementError(header[-1], problem)


def _value(name: str, cell: str, type_: Type) -> Any:
    if not cell:
        return None
    if type_ == "text":
        return cell
    if type_ == "number":
        if not NUMBER.fullmatch(cell):
            raise JudgementError(name, f"must be a number such as -1.5, got {cell[:60]!a}")
        return float(cell)
    if type_ == "flag":
        if cell.strip().lower() not in FLAGS:
            raise JudgementError(name, f"must be true or false, got {cell[:60]!a}")
        return FLAGS[cell.strip().lower()]
    try:
        return parse_json(cell)
    except JudgementError as error:
        example = {"texts": '["ann", "bob"]', "numbers": "[1, 2.5]"}.get(type_, '{"tone": 2}')
        raise JudgementError(name, f"{error.problem}, got {cell[:60]!a}; expected such as {example}") from None


@contextmanager
def _field_limit(limit: int) -> Iterator[None]:
    """Let csv read cells of `limit` characters; its own limit belongs to the whole process."""
    before = csv.field_size_limit(limit)
    try:
        yield
    finally:
        csv.field_size_limit(before)
