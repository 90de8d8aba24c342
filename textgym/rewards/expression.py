"""The text form of rewards: `human-rating + 0.2*fluency - 0.1*clip(length(target=20), -5, 0)`, read into names, weights and options.

    sum      = ["-"] product { ("+" | "-") product }
    product  = [number "*"] call
    call     = name ["(" [argument {"," argument}] ")"]
    argument = name "=" value | value | sum
    value    = number | 'text' | "text" | true | false | none | [..] | {..} | name

A name may hold hyphens, dots, slashes and colons, so a minus sign needs a space on each side.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from textgym.errors import InvalidArgumentError
from textgym.lm.endpoint import NO_KEY, names_api_key

NAME = re.compile(r"[A-Za-z_~./][\w./:~-]*")
NUMBER = re.compile(r"[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?")
DEEPEST = 32  # brackets in brackets
SECRET = "api_key"  # the option that is never shown or stored
WORDS = {"true": True, "false": False, "none": None, "null": None}


@dataclass(frozen=True)
class Call:
    """A reward by name, with what stands in its brackets.

    Attributes:
        name: Registered name.
        arguments: Values, and rewards (as `Sum`s), by place.
        options: Values by name.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


Sum: TypeAlias = list[tuple[float, Call]]
"""Weights and calls."""


def parse(text: str) -> Sum:
    """Return the weights and calls of a text; raises `InvalidArgumentError` that shows where it stopped making sense."""
    reader = _Reader(text)
    result = reader.sum()
    reader.expect_end()
    return result


def is_sum(argument: Any) -> bool:
    """Return whether an argument is a sum of rewards and not a value."""
    return isinstance(argument, list) and bool(argument) and isinstance(argument[0], tuple)


def show(call: Call) -> str:
    """Return a call as text that `parse` reads again; a secret given from code is left out."""
    inside = [show_sum(argument) if is_sum(argument) else _show_value(argument) for argument in call.arguments]
    inside += [f"{key}={_show_value(value)}" for key, value in call.options.items() if key != SECRET or names_api_key(value)]
    return f"{call.name}({', '.join(inside)})" if inside else call.name


def show_sum(summands: Sequence[tuple[float, Call]]) -> str:
    """Return a sum as text that `parse` reads again."""
    return join([(weight, show(call)) for weight, call in summands])


def join(summands: Sequence[tuple[float, str]]) -> str:
    """Return weights and names as a sum, "human-rating - 0.5*repetition"."""
    text = ""
    for weight, name in summands:
        product = name if abs(weight) == 1 else f"{abs(float(weight))!r}".removesuffix(".0") + f"*{name}"
        if text:
            text += f" - {product}" if weight < 0 else f" + {product}"
        else:
            text = f"-{product}" if weight < 0 else product
    return text


def _show_value(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def sum(self) -> Sum:
        sign = -1.0 if self.take("-") else 1.0
        found = [self.product(sign)]
        while True:
            if self.take("+"):
                found.append(self.product(1.0))
            elif self.take("-"):
                found.append(self.product(-1.0))
            else:
                return found

    def product(self, sign: float) -> tuple[float, Call]:
        weight = self.match(NUMBER)
        if weight is not None and not self.take("*"):
            self.fail("a * after the weight")
        return sign * (1.0 if weight is None else float(self.finite(weight))), self.call()

    def call(self) -> Call:
        name = self.match(NAME)
        if name is None:
            self.fail("the name of a reward")
        arguments: list[Any] = []
        options: dict[str, Any] = {}
        if self.take("("):
            self.depth += 1
            if self.depth > DEEPEST:
                self.fail(f"at most {DEEPEST} brackets in brackets")
            while not self.take(")"):
                key = self.option_name()
                if key is not None:
                    if key in options:
                        self.fail(f"{key} only once")
                    options[key] = self.option(key)
                elif options:
                    self.fail("name=value: arguments by place come first")
                else:
                    arguments.append(self.argument())
                if not self.take(",") and not self.peek(")"):
                    self.fail("a comma or a closing bracket")
            self.depth -= 1
        return Call(name, tuple(arguments), options)

    def option_name(self) -> str | None:
        start, name = self.at, self.match(re.compile(r"[A-Za-z_]\w*"))
        if name is not None and self.take("="):
            return name
        self.at = start
        return None

    def option(self, key: str) -> Any:
        value = self.value()
        if key != SECRET:
            return value
        if value is None:  # written "none" without quotes
            return NO_KEY
        if not isinstance(value, str) or not names_api_key(value):
            raise InvalidArgumentError(
                f"a reward's text is logged and stored, so {SECRET} must not be in it: put the key into an environment variable and write "
                f"{SECRET}='$ITS_NAME'"
            )
        return value

    def argument(self) -> Any:
        """Return a sum of rewards, or a value if it is a number, a quoted text, or a JSON list or object."""
        start = self.at
        self.take("-")
        number = self.match(NUMBER)
        if number is not None and not self.peek("*"):
            self.at = start
            return self.value()
        self.at = start
        if any(self.peek(mark) for mark in ("'", '"', "[", "{")):
            return self.value()
        return self.sum()

    def value(self) -> Any:
        sign = -1 if self.take("-") else 1
        number = self.match(NUMBER)
        if number is not None:
            return sign * self.finite(number)
        if sign < 0:
            self.fail("a number after the minus sign")
        for quote in ("'", '"'):
            if self.peek(quote):
                return self.quoted(quote)
        if self.peek("[") or self.peek("{"):
            try:
                value, end = json.JSONDecoder().raw_decode(self.text, self.at)
                json.dumps(value, allow_nan=False)
            except (ValueError, RecursionError):  # of numbers without end too
                self.fail("a JSON list or object of finite numbers")
            self.at = end
            return value
        word = self.match(NAME)
        if word is None:
            self.fail("a value")
        return WORDS.get(word.lower(), word)

    def finite(self, number: str) -> int | float:
        try:
            value = int(number) if number.isdigit() else float(number)
            too_large = not math.isfinite(value)
        except (ValueError, OverflowError):  # more digits than Python reads, or than a float holds
            too_large = True
        if too_large:
            self.fail("a number that is not so large")
        return value

    def quoted(self, quote: str) -> str:
        end = self.at + 1
        while end < len(self.text) and self.text[end] != quote:
            end += 2 if self.text[end] == "\\" and self.text[end + 1 : end + 2] in (quote, "\\") else 1
        if end >= len(self.text):
            self.fail(f"a closing {quote}")
        raw, self.at = self.text[self.at + 1 : end], end + 1
        return re.sub(rf"\\([\\{quote}])", r"\1", raw)

    # --- characters --------------------------------------------------------------------------------------------------------------

    def peek(self, mark: str) -> bool:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text.startswith(mark, self.at)

    def take(self, mark: str) -> bool:
        found = self.peek(mark)
        self.at += len(mark) if found else 0
        return found

    def match(self, pattern: re.Pattern[str]) -> str | None:
        self.peek("")
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group()

    def expect_end(self) -> None:
        self.peek("")
        if self.at < len(self.text):
            self.fail("+, - (with spaces around it, for names hold hyphens) or the end" if "-" in self.text else "+, - or the end")

    def fail(self, wanted: str) -> NoReturn:
        before, after = self.text[: self.at].rstrip(), self.text[self.at :].strip()
        place = f"after {before[-60:]!r}" if before else "at the beginning"
        raise InvalidArgumentError(
            f"cannot read the reward {_short(self.text)!r}: expected {wanted} {place}, got {after[:20] or 'the end'!r}"
        )


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
