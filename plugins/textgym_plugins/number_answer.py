"""The reward "number-answer": whether the last number of a continuation is the right one."""

import math
import re
from collections.abc import Sequence
from typing import Any

import textgym
from textgym_plugins.reference_texts import reference_continuations

WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,400})"
NUMBER = re.compile(rf"(?<!\w)(?<!\d\.)[-−+]?(?:{WHOLE}(?:\.\d{{1,400}})?|(?<!\.)\.\d{{1,400}})(?:[eE][-+]?\d{{1,4}}(?!\w))?")


def last_number(text: str) -> float | None:
    """Return the last number of `text` ("1,234.5", "-3", ".5", "2e3"), or None; a minus sign inside a word or range is a hyphen."""
    found = None
    for match in NUMBER.finditer(text):
        found = match.group()
    return None if found is None else float(found.replace(",", "").replace("−", "-"))


class NumberAnswer:
    """1 if the last number of the continuation equals the answer, else 0.

    Args:
        answer: The right number; None takes the last number of any of the references ("... #### 42" as well as "42").
        tolerance: How far from it still counts as right.
        relative: True measures the distance as a share of the answer.

    No number, or a reference without one, scores 0.

    Source: the way answers to GSM8K are compared, Cobbe et al. (2021), "Training Verifiers to Solve Math Word Problems", arXiv:2110.14168.
    A verifier: it does not read how the number was found.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, answer: float | None = None, tolerance: float = 1e-6, relative: bool = False) -> None:
        if answer is not None and (isinstance(answer, (str, bool)) or not math.isfinite(answer)):
            raise textgym.InvalidArgumentError(f"number-answer: answer must be a finite number, got {answer!r}")
        if not 0 <= tolerance < math.inf:
            raise textgym.InvalidArgumentError(f"number-answer: tolerance must be finite and at least 0, got {tolerance!r}")
        self.answer, self.tolerance, self.relative = answer, tolerance, relative
        self.needs_references = answer is None

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or 0.0 per episode, (n,)."""
        return [float(any(self._right(last_number(e.continuation), answer) for answer in self._answers(e))) for e in episodes]

    def _answers(self, episode: textgym.Episode) -> list[float | None]:
        if self.answer is not None:
            return [self.answer]
        return [last_number(reference) for reference in reference_continuations(episode, "number-answer")]

    def _right(self, given: float | None, answer: float | None) -> bool:
        if given is None or answer is None:
            return False
        return abs(given - answer) <= self.tolerance * (abs(answer) if self.relative else 1.0)


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "number-answer"."""
    register("number-answer", NumberAnswer)
