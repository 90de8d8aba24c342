"""Arrow rows: judgements in a Parquet file or in a Hugging Face data set on disk, read and written by pyarrow alone."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.reward_modeling.data.judgements import JudgementError, JudgementSet
from textgym.reward_modeling.data.schema import SCHEMAS, parse_json, placed, rows_of
from textgym.reward_modeling.data.text_rows import Rows

SPLITS = ("train", "validation", "test")
DATA_FILE = "data-00000-of-00001.arrow"


def parquet_rows(path: Path) -> Rows:
    """Yield the place and the fields of each row of a Parquet file.

    Raises:
        InvalidArgumentError: It cannot be read, or a value in it is damaged.
        MissingExtraError: pyarrow is not installed.
    """
    pa = _pyarrow("reading Parquet")
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise placed(path, "row 1", JudgementError("", f"the file is damaged or not Parquet ({error})")) from None
    yield from _table_rows(path, table, "")


def data_set_rows(folder: Path) -> Rows:
    """Yield the place and the fields of each row of a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    In the latter the parts must be called train, validation or test; their names become the rows' splits.

    Raises:
        InvalidArgumentError: It is no such folder, or cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    _pyarrow("reading a Hugging Face data set")
    if (folder / "dataset_dict.json").is_file():
        parts = _json_file(folder / "dataset_dict.json").get("splits")
        if not isinstance(parts, list) or not all(part in SPLITS for part in parts):
            raise InvalidArgumentError(
                f"{folder}/dataset_dict.json: splits must be of {', '.join(SPLITS)}, got {parts!r}; rename the others"
            )
        for part in parts:
            for place, row in _saved_rows(folder / part, f"{part}, "):
                if row.get("split") not in (None, "", part):
                    raise placed(folder, place, JudgementError("split", f"is {row['split']!r} in the part {part!r}; take the field out"))
                yield place, {**row, "split": part}
        return
    yield from _saved_rows(folder, "")


def is_data_set(folder: Path) -> bool:
    """Return True for a folder that holds a Hugging Face data set."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def table_of(judgements: JudgementSet[Any]) -> Any:
    """Return a pyarrow table: texts, float64, bool, lists of them; objects as JSON texts. Its metadata carry the data set's features."""
    pa = _pyarrow("writing Parquet or a Hugging Face data set")
    number, text = pa.float64(), pa.string()
    types = {"text": text, "number": number, "flag": pa.bool_(), "texts": pa.list_(text), "numbers": pa.list_(number)}
    rows = rows_of(judgements)
    columns, fields = [], []
    for field in SCHEMAS[judgements.kind]:
        if rows and field.name not in rows[0]:
            continue
        values = [row[field.name] for row in rows]
        if field.type in ("object", "numbers by name"):
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        columns.append(pa.array(values, types.get(field.type, text)))
        fields.append(pa.field(field.name, columns[-1].type))
    info = {"info": {"features": {field.name: _feature(field.type) for field in fields}}}
    return pa.table(columns, schema=pa.schema(fields, metadata={"huggingface": json.dumps(info)}))


def write_parquet(judgements: JudgementSet[Any]) -> bytes:
    """Return the bytes of a Parquet file, its pages with checksums."""
    table = table_of(judgements)
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def fill_data_set(judgements: JudgementSet[Any], folder: Path) -> None:
    """Write into an empty folder what `datasets.load_from_disk` reads."""
    table = table_of(judgements)
    import pyarrow as pa

    with pa.OSFile(str(folder / DATA_FILE), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    fingerprint = hashlib.sha256((folder / DATA_FILE).read_bytes()).hexdigest()[:16]
    state: dict[str, Any] = {"_data_files": [{"filename": DATA_FILE}], "_fingerprint": fingerprint}
    state |= {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
    (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")


def _saved_rows(folder: Path, part: str) -> Rows:
    import pyarrow as pa

    if not (folder / "state.json").is_file():
        raise InvalidArgumentError(f"{folder} is no Hugging Face data set: it holds no state.json; give a folder written by save_to_disk")
    state = _json_file(folder / "state.json")
    files = state.get("_data_files")
    named = [file.get("filename") if isinstance(file, dict) else None for file in files] if isinstance(files, list) else [None]
    names = [name for name in named if isinstance(name, str) and Path(name).name == name]
    if names != named:
        raise InvalidArgumentError(f"{folder / 'state.json'}: _data_files must name files of the folder, got {files!r}")
    first = 0
    for name in names:
        try:
            with pa.memory_map(str(folder / name)) as file, pa.ipc.open_stream(file) as stream:
                table = stream.read_all()
                table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise placed(folder, f"{part}row {first + 1}", JudgementError("", f"{name} is damaged or missing ({error})")) from None
        yield from _table_rows(folder, table, part, first)
        first += table.num_rows


def _table_rows(path: Path, table: Any, part: str, first: int = 0) -> Rows:
    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise placed(path, f"{part}row {first + 1}", JudgementError(name, "names two columns; keep one"))
    columns = [list(_values(path, name, table.column(i), part, first)) for i, name in enumerate(names)]
    for n, values in enumerate(zip(*columns, strict=True), first + 1):
        yield f"{part}row {n}", dict(zip(names, values, strict=True))


def _values(path: Path, name: str, column: Any, part: str, first: int) -> Iterator[Any]:
    for n, cell in enumerate(column, first + 1):
        try:
            value = cell.as_py()
            if name in ("metadata", "aspects"):
                value = parse_json(value) if isinstance(value, str) else value
                if name == "aspects" and isinstance(value, dict):
                    value = {key: v for key, v in value.items() if v is not None}  # a column of structs has every name in each row
        except UnicodeDecodeError as error:
            raise placed(path, f"{part}row {n}", JudgementError(name, f"is not UTF-8 ({error.reason})")) from None
        except JudgementError as error:
            raise placed(path, f"{part}row {n}", JudgementError(name, error.problem)) from None
        except (ValueError, OverflowError) as error:
            raise placed(path, f"{part}row {n}", JudgementError(name, f"cannot be read: {error}")) from None
        yield value


def _feature(type_: Any) -> dict[str, Any]:
    """Return the name of a column's type in a data set's features; "Sequence" is what older and newer readers know."""
    import pyarrow as pa

    if pa.types.is_list(type_):
        return {"feature": _feature(type_.value_type), "_type": "Sequence"}
    return {"dtype": {"double": "float64"}.get(str(type_), str(type_)), "_type": "Value"}


def _json_file(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{path}, line 1: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"{path}, line 1: expected a JSON object")
    return found


def _pyarrow(feature: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError(feature, "reward-modeling") from None
    return pyarrow
