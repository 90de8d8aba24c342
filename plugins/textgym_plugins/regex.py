"""The reward "regex": whether a continuation matches a regular expression."""

import re
from collections.abc import Sequence
from typing import Any

import textgym


class Regex:
    """1 if the continuation matches the pattern, else 0.

    Args:
        pattern: A regular expression of Python's `re`; flags stand inside it, as in "(?i)yes".
        full: True wants the whole continuation (white space around it left out) to match, False any part of it.

    A pattern with nested repetition, such as "(a+)+b", can take time exponential in the length of the text: write it without.

    Source: none; a verifier.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, pattern: str, full: bool = False) -> None:
        try:
            self._pattern = re.compile(pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise textgym.InvalidArgumentError(f"regex: pattern {pattern!r} is no regular expression: {error}") from None
        if isinstance(self._pattern.pattern, bytes):
            raise textgym.InvalidArgumentError(f"regex: pattern must be text, got {pattern!r}")
        self.full = full

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or 0.0 per episode, (n,)."""
        match = (lambda text: self._pattern.fullmatch(text.strip())) if self.full else self._pattern.search
        return [float(match(episode.continuation) is not None) for episode in episodes]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "regex"."""
    register("regex", Regex)
