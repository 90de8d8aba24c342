"""The reward "profanity": minus the share, or number, of swear words in a continuation."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import textgym

WORD = re.compile(r"\w+(?:['’]\w+)*")


class Profanity:
    """Minus the share of the continuation's words that are swear words; -1 (all of them) .. 0 (none).

    `measure="count"` gives minus their number instead, -infinity .. 0, which a longer text does not dilute. Look-alikes count as well
    ("sh1t", "a$$"). A word list knows no context: it takes harmless uses for swearing and finds no insult in clean words.

    Source: the word list and look-alikes of better-profanity, 900 English words; searched for by one regular expression
    here, which is much faster than the package's own search.
    """

    high = 0.0
    deterministic = True
    version = "1"
    license = "MIT"

    def __init__(self, measure: str = "share") -> None:
        if measure not in ("share", "count"):
            raise textgym.InvalidArgumentError(f'profanity: measure must be "share" or "count", got {measure!r}')
        try:
            from better_profanity.better_profanity import Profanity as WordList
        except ImportError:
            raise textgym.MissingExtraError('the reward "profanity"', "profanity") from None
        self.measure = measure
        self.low = -1.0 if measure == "share" else float("-inf")
        known = WordList()
        self._pattern = swear_word_pattern((word._original for word in known.CENSOR_WORDSET), known.CHARS_MAPPING)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return minus the shares, or numbers, of swear words, (n,)."""
        return [-self._measured(episode.continuation) for episode in episodes]

    def _measured(self, text: str) -> float:
        found = [match.group() for match in self._pattern.finditer(text.lower())]
        found = [match for match in found if any(character.isalpha() for character in match)]  # "455" is a number
        if self.measure == "count" or not found:
            return float(len(found))
        return min(1.0, sum(max(1, len(WORD.findall(match))) for match in found) / max(1, len(WORD.findall(text))))


def swear_word_pattern(words: Iterable[str], look_alikes: dict[str, tuple[str, ...]]) -> re.Pattern[str]:
    """Return a pattern of all the words, their beginnings shared, each letter standing for its look-alikes too."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for letter in word.strip():
            node = node.setdefault(letter, {})
        node[""] = {}

    def pattern(node: dict[str, Any]) -> str:
        branches = [
            "[" + re.escape("".join(look_alikes.get(letter, (letter,)))) + "]" + pattern(inside)
            for letter, inside in sorted(node.items(), reverse=True)
            if letter
        ]
        body = branches[0] if len(branches) == 1 and "" not in node else f"(?:{'|'.join(branches)})" if branches else ""
        return body + "?" if "" in node and branches else body

    return re.compile(rf"(?<!\w){pattern(tree)}(?!\w)")


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "profanity"."""
    register("profanity", Profanity)
