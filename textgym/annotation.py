"""Annotation: what a parameter's type hint says of a value that comes from outside, and how it says so to a person."""

import inspect
from collections.abc import Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "none"}


def fits(value: object, annotation: Any) -> bool:
    """Whether a value is what an annotation says: for numbers, texts, truth values, None, literals, unions, sequences and classes.

    A whole number is a number, but True is none, and neither is nan. What an annotation says beyond that - a type variable, a text, a
    protocol - is not checked.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, a) for a in arguments)
    if origin is Literal:
        return any(type(value) is type(a) and value == a for a in arguments)
    if annotation in (None, NoneType):
        return value is None
    if annotation in (int, float):
        kind = Integral if annotation is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and value == value
    kind = origin or annotation
    if not isinstance(kind, type) or kind is object:
        return True
    if issubclass(kind, (Sequence, tuple)) and kind is not str:
        elements = arguments[0] if arguments else Any
        return isinstance(value, Sequence) and not isinstance(value, str) and all(fits(v, elements) for v in value)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be asked
        return True


def in_words(annotation: Any) -> str:
    """Return what an annotation says, for an error: "a number or none"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(in_words(a) for a in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if annotation in WORDS:
        return WORDS[annotation]
    return f"a {(origin or annotation).__name__}" if inspect.isclass(origin or annotation) else inspect.formatannotation(annotation)
