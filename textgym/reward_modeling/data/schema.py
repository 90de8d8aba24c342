"""Schema: the fields that a row of judgements may have, whatever file it stands in, and how a row becomes a judgement and back."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.judgements import CLASSES, JudgementError, JudgementSet, Kind, mean_of

Type = Literal["text", "number", "flag", "texts", "numbers", "numbers by name", "object"]


@dataclass(frozen=True)
class Field:
    """One field of a row.

    Attributes:
        name: As in the judgement's class.
        type: "texts" and "numbers" are lists; "numbers by name" and "object" are JSON objects.
        meaning: For the documentation.
        required: A row without it is at fault.
        of_set: Describes the whole set: every row repeats the same value.
    """

    name: str
    type: Type
    meaning: str
    required: bool = False
    of_set: bool = False


ID = Field("id", "text", "unique name; where no row has one, it is made from the row's texts")
COMMON = (
    Field("prompt", "text", "the given text; none if left out"),
    Field("source", "text", "where the text comes from"),
    Field("group", "text", "judgements of one group stay in one split"),
    Field("split", "text", "`train`, `validation`, `test`, or none"),
    Field("metadata", "object", "whatever else is known"),
)
TEXT = Field("text", "text", "the continuation, or the whole text where there is no prompt", required=True)
SCHEMAS: Mapping[Kind, tuple[Field, ...]] = {
    "ratings": (
        ID,
        TEXT,
        Field("rating", "number", "mean rating; may be left out where `ratings` are given"),
        Field("ratings", "numbers", "individual ratings"),
        Field("raters", "texts", "who gave them, in the same order"),
        Field("aspects", "numbers by name", "mean ratings of single aspects"),
        Field("low", "number", "lowest rating of the scale", of_set=True),
        Field("high", "number", "highest rating of the scale", of_set=True),
        *COMMON,
    ),
    "labels": (
        ID,
        TEXT,
        Field("label", "text", "the text's class", required=True),
        Field("classes", "texts", "all classes, in order of rank where they have one", of_set=True),
        *COMMON,
    ),
    "pairs": (
        ID,
        Field("chosen", "text", "the better continuation", required=True),
        Field("rejected", "text", "the other one", required=True),
        Field("margin", "number", "how much better, at least 0"),
        Field("tie", "flag", "true if neither was preferred"),
        Field("rater", "text", "who judged"),
        *COMMON,
    ),
    "texts": (ID, TEXT, *COMMON),
}
MARKS: Mapping[str, Kind] = {"chosen": "pairs", "rejected": "pairs", "label": "labels", "rating": "ratings", "ratings": "ratings"}
NAME = re.compile(r'"(\w+)"\s*:')
JSON_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def kind_of(fields: Collection[str]) -> Kind:
    """Return the kind of judgement whose rows have these fields.

    Raises:
        JudgementError: They fit no kind.
    """
    kinds = [MARKS[name] for name in MARKS if name in fields]
    if kinds:
        return kinds[0]
    if "text" in fields:
        return "texts"
    near = [name for name in fields if get_close_matches(name, (*MARKS, "text"), n=1)]
    found = ", ".join(sorted(map(str, fields))[:12]) or "none"
    wanted = "a row has text; text and rating; text and label; or chosen and rejected"
    raise JudgementError(near[0] if near else next(iter(fields), "text"), f"says of no kind of judgement (fields: {found}); {wanted}")


def check_names(names: Collection[str], kind: Kind) -> None:
    """Raise `JudgementError` for the first name that is no field of the kind."""
    known = {field.name for field in SCHEMAS[kind]}
    for name in names:
        if name not in known:
            raise JudgementError(name, f"is no field of {kind}; {_advice(name, kind)}")


def typed(row: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Return a row's values as a judgement holds them; fields that are missing or null are left out.

    Raises:
        JudgementError: Unknown or missing field, or a value of the wrong type.
    """
    check_names(row.keys(), kind)
    values = {}
    for field in SCHEMAS[kind]:
        value = row.get(field.name)
        if value is not None:
            values[field.name] = _typed(field.name, field.type, value)
        elif field.required:
            raise JudgementError(field.name, f"is missing; {kind} need it")
    if kind == "ratings" and "rating" not in values:
        if not values.get("ratings"):
            raise JudgementError("rating", "is missing, and so are `ratings`; give one of them")
        values["rating"] = mean_of(values["ratings"])
    return values


def of_set(values: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """Take the values that describe the whole set out of a row's typed values and return them."""
    return {field.name: values.pop(field.name) for field in SCHEMAS[kind] if field.of_set and field.name in values}


def content_id(values: Mapping[str, Any], kind: Kind) -> str:
    """Return a name made from a row's texts, so that it does not depend on the order of rows."""
    parts = [values.get(name, "") for name in ("prompt", "text", "chosen", "rejected")]
    return hashlib.sha256(json.dumps([kind, *parts]).encode()).hexdigest()[:16]


def rows_of(judgements: JudgementSet[Any]) -> list[dict[str, Any]]:
    """Return one plain row a judgement, the same fields in each: those that any of them fills, in the schema's order.

    Raises:
        JudgementError: A value that JSON cannot say.
    """
    fields = SCHEMAS[judgements.kind]
    shared = {"low": judgements.low, "high": judgements.high, "classes": list(judgements.classes) or None}
    rows = []
    for index, item in enumerate(judgements.items):
        row: dict[str, Any] = {}
        for field in fields:
            value = shared[field.name] if field.of_set else getattr(item, field.name)
            value = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            row[field.name] = value if field.required or value not in ("", [], {}, False) or field.type == "number" else None
        _check_writable(row, index)
        rows.append(row)
    used = [field.name for field in fields if any(row[field.name] is not None for row in rows)]
    # a pair's `tie` is spelt out beside others' true
    return [{name: row[name] if name != "tie" else bool(row[name]) for name in used} for row in rows]


def placed(path: str | os.PathLike[str], place: str, error: JudgementError) -> InvalidArgumentError:
    """Return a fault with the file and the place in it ("line 3", "row 3")."""
    return InvalidArgumentError(" ".join(f"{os.fspath(path)}, {place}{', ' if error.field else ': '}{error}".split()))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        JudgementError: It is none, or an object in it names a field twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise JudgementError(_field_before(text[: error.pos]), f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, JudgementError):
            raise
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise JudgementError(_field_before(text), f"is not JSON: {why}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise JudgementError(next(name for name in names if names.count(name) > 1), "stands twice in one object; keep one")
    return found


def _field_before(text: str) -> str:
    """Return the name of the field that a piece of JSON breaks off in, as well as can be told; "" if in none."""
    names = NAME.findall(text)
    return names[-1] if names else ""


def _check_plain(name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise JudgementError(name, f"holds what JSON cannot say: {error}") from None


def _check_writable(row: dict[str, Any], index: int) -> None:
    for name, value in row.items():
        if value is None or type(value) in (float, int, bool) or (type(value) is str and value.isascii() and "\0" not in value):
            continue
        if type(value) is list and all(type(number) is float for number in value):
            continue
        try:
            said = json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise JudgementError(name, f"cannot be written: {error}", index) from None
        if said != value:
            raise JudgementError(name, f"{_shown(value)} cannot be written: JSON would read it back as {_shown(said)}", index)
        if isinstance(value, str) and "\0" in value:
            raise JudgementError(name, "holds a NUL character; take it out", index)


def _typed(name: str, type_: Type, value: Any) -> Any:
    if type_ == "text":
        return _text(name, value)
    if type_ == "number":
        return _number(name, value)
    if type_ == "flag":
        if not isinstance(value, bool):
            raise _wrong(name, "true or false", value)
        return value
    if type_ in ("texts", "numbers"):
        if not isinstance(value, list):
            raise _wrong(name, f"a list of {type_}", value)
        return tuple(_text(name, v) if type_ == "texts" else _number(name, v) for v in value)
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    if type_ == "object":
        _check_plain(name, value)
        return value
    return {_text(name, key): _number(f"{name}.{key}", v) for key, v in value.items()}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    if "\0" in value:
        raise JudgementError(name, "holds a NUL character; take it out")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"holds half a surrogate pair ({value[error.start]!a} at character {error.start}); take it out"
            raise JudgementError(name, problem) from None
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, "a number", value)
    try:
        return float(value)
    except OverflowError:
        raise JudgementError(name, f"is too large ({_shown(value)})") from None


def _wrong(name: str, wanted: str, value: Any) -> JudgementError:
    found = "missing" if value is None else JSON_NAMES.get(type(value), type(value).__name__)
    return JudgementError(name, f"must be {wanted}, but is {found}: {_shown(value)}")


def _advice(name: str, kind: Kind) -> str:
    owners = [other for other in SCHEMAS if any(field.name == name for field in SCHEMAS[other])]
    if owners:
        return f"it belongs to {' and '.join(owners)}"
    known = [field.name for field in SCHEMAS[kind]]
    near = get_close_matches(name, known + [field.name for fields in SCHEMAS.values() for field in fields], n=1, cutoff=0.6)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}; anything else goes into `metadata`"


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def parse_kind(kind: str | None) -> Kind | None:
    """Return the kind itself, checked."""
    if kind is None:
        return None
    for known in CLASSES:
        if kind == known:
            return known
    raise InvalidArgumentError(f"kind must be one of {', '.join(CLASSES)}, got {kind!r}")
