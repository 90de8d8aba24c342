"""The reward "json-schema": whether a continuation is JSON that fits a schema."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import textgym


class JsonSchema:
    """1 if the continuation is JSON that fits the schema, else 0.

    Args:
        schema: A JSON Schema as a mapping, as JSON text, or a path to a `.json` file; {} for any JSON. Without "$schema" it is read as
            draft 2020-12. References may only point into the schema itself: nothing is fetched.
        partial: What JSON is worth that does not fit, 0 .. 1; 0.2, say, makes the first step easier to find.

    White space around the JSON is left out; NaN, Infinity and numbers too large for a float are no JSON.

    Source: json-schema.org, draft 2020-12; checked by jsonschema. A verifier: an empty object fits many a schema, so demand what you need
    by "required".
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "MIT"

    def __init__(self, schema: Mapping[str, Any] | str, partial: float = 0.0) -> None:
        try:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import Draft202012Validator, validator_for
            from referencing import Registry, Resource
            from referencing.exceptions import Unresolvable
            from referencing.jsonschema import DRAFT202012
        except ImportError:
            raise textgym.MissingExtraError('the reward "json-schema"', "json-schema") from None
        if not 0 <= partial <= 1:
            raise textgym.InvalidArgumentError(f"json-schema: partial must be between 0 and 1, got {partial!r}")
        read = _read(schema) if isinstance(schema, str) else dict(schema) if isinstance(schema, Mapping) else schema
        if not isinstance(read, (dict, bool)):
            raise textgym.InvalidArgumentError(f"json-schema: a schema is an object, got {read!r}")
        kind = validator_for(read, default=Draft202012Validator)
        try:
            kind.check_schema(read)
        except SchemaError as error:
            raise textgym.InvalidArgumentError(f"json-schema: no schema: {error.message} at {error.json_path}") from None
        resolver = Registry().resolver_with_root(Resource.from_contents(read, default_specification=DRAFT202012))
        for reference in _references(read):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                message = f'json-schema: "$ref" must point into the schema ("#/..."), got {reference!r}'
                raise textgym.InvalidArgumentError(message) from None
        self.schema, self.partial = read, partial
        self._validator = kind(read, registry=Registry())  # an empty registry: nothing is fetched

    def __reduce__(self) -> tuple[type["JsonSchema"], tuple[Any, float]]:
        return JsonSchema, (self.schema, self.partial)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 for JSON that fits, `partial` for other JSON, else 0.0, (n,)."""
        return [self._score(episode.continuation) for episode in episodes]

    def _score(self, text: str) -> float:
        try:
            read = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
            return 1.0 if self._validator.is_valid(read) else self.partial
        except (ValueError, RecursionError):  # no JSON; or nested deeper than anybody wants to read
            return 0.0


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    return value if math.isfinite(value := float(number)) else _refuse(number)  # 1e999 would be Infinity after all


def _whole(number: str) -> int:
    _finite(number)  # a schema divides by floats, which a number of 400 digits does not survive
    return int(number)


def _read(schema: str) -> Any:
    try:
        return json.loads(schema if schema.lstrip().startswith("{") else Path(schema).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise textgym.InvalidArgumentError(f"json-schema: cannot read the schema {schema[:80]!r}: {error}") from None


def _references(schema: Any) -> Iterator[str]:
    inside = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    for value in inside:
        yield from _references(value)


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "json-schema"."""
    register("json-schema", JsonSchema)
