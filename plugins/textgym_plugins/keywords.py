"""The reward "keyword": whether a continuation has the wanted words."""

import re
from collections.abc import Sequence
from typing import Any

import textgym

MODES = ("all", "any", "share")


class Keyword:
    """1 if the continuation has all (or any) of the wanted words, else 0; with mode="share", the share of them that it has.

    Args:
        words: The words or phrases, at least one; a single string is one phrase.
        mode: "all", "any" or "share".
        ignore_case: True finds "Delight" for "delight".
        whole_words: True does not find "art" in "party". Runs of white space in a phrase match any white space.

    Source: none; a verifier. Saying the words somewhere is enough for it, in whatever sense: have a measure of quality beside it.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, words: Sequence[str] | str, mode: str = "all", ignore_case: bool = True, whole_words: bool = True) -> None:
        wanted = [words] if isinstance(words, str) else list(words)
        if not wanted or not all(isinstance(word, str) and word.strip() for word in wanted):
            raise textgym.InvalidArgumentError(f"keyword: words must be at least one non-empty text, got {words!r}")
        if mode not in MODES:
            raise textgym.InvalidArgumentError(f"keyword: mode must be one of {', '.join(MODES)}, got {mode!r}")
        self.mode = mode
        border = (r"(?<!\w)", r"(?!\w)") if whole_words else ("", "")
        bodies = (r"\s+".join(map(re.escape, word.split())) for word in wanted)
        self._patterns = [re.compile(border[0] + body + border[1], re.IGNORECASE if ignore_case else 0) for body in bodies]

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or 0.0 per episode, or the share of the words found, (n,)."""
        return [self._score(episode.continuation) for episode in episodes]

    def _score(self, text: str) -> float:
        found = [pattern.search(text) is not None for pattern in self._patterns]
        return sum(found) / len(found) if self.mode == "share" else float(all(found) if self.mode == "all" else any(found))


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "keyword"."""
    register("keyword", Keyword)
