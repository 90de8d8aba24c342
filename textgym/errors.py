"""The errors a user of textgym can meet, each one line that says what happened, with which value, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_LIST = 50  # names that one error shows


class TextgymError(Exception):
    """Base of every error that textgym raises for a reason outside its own code."""


class InvalidArgumentError(TextgymError, ValueError):
    """A value from outside (argument, file, option) that cannot be used."""


class UnknownNameError(TextgymError, LookupError):
    """A name that no plugin registered.

    Args:
        kind: What was looked up, in the singular: "reward", "task", "agent", "model".
        name: The name that was not found.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        shown = names if len(names) <= LONGEST_LIST else [*names[: LONGEST_LIST - 1], f"and {len(names) - LONGEST_LIST + 1} more"]
        super().__init__(f"unknown {kind} {name!r}: {hint}known {kind}s: {', '.join(shown) or 'none'}")
        self.kind, self.name = kind, name


class RewardError(TextgymError, RuntimeError):
    """A reward model that raised, or returned something that is not one finite number per episode."""


class TemporaryRewardError(RewardError):
    """A reward model that failed for a reason that may pass (busy, timed out, an unreadable answer): it is tried again.

    Args:
        message: What happened, in one line.
        retry_after: Seconds the other side asks to wait, if it does.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EndpointError(TextgymError, RuntimeError):
    """A served language model that refused a request, or gave no text after all attempts."""


class MissingExtraError(TextgymError, ImportError):
    """An optional dependency that is not installed; the message names the extra that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'textgym[{extra}]'")


class DivergenceError(TextgymError, ArithmeticError):
    """Learning that has left the finite numbers; the message names where, and what to change."""


class RunDirectoryError(TextgymError, OSError):
    """A run directory that cannot be written, is in use, or does not hold what it should."""


class PluginWarning(UserWarning):
    """A plugin that was skipped, in whole or in part; the message names it and says why."""


def one_line(error: BaseException) -> str:
    """Return what happened as "Type: message", whatever line breaks the message has."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
