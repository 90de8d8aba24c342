"""The reward "readability": how easy a text is to read, by a formula of its sentence and word lengths."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import textgym

SCALES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "flesch_reading_ease": (0.0, 100.0),
        "flesch_kincaid_grade": (0.0, 20.0),
        "smog_index": (0.0, 20.0),
        "automated_readability_index": (0.0, 20.0),
        "coleman_liau_index": (0.0, 20.0),
    }
)


class Readability:
    """Reading ease of the text; 0 (hardest) .. 100 (easiest), or, for another `measure`, the school grade it needs; 0 .. 20.

    Args:
        measure: "flesch_reading_ease", or a grade, to be used with a negative weight: "flesch_kincaid_grade", "smog_index",
            "automated_readability_index", "coleman_liau_index".
        part: "text" reads prompt and continuation together, "continuation" the continuation alone.

    Scores are cut at the ends of the scale. A text without a letter or digit is as hard as can be: 0, or grade 20. The formulas are for
    English and count lengths, not sense. Syllables are counted by hyphenation, the same on every machine; textstat's own dictionary would
    be downloaded.

    Source: Flesch (1948), "A New Readability Yardstick"; Kincaid et al. (1975); computed by textstat.
    """

    deterministic = True
    version = "1"
    license = "MIT"

    def __init__(self, measure: str = "flesch_reading_ease", part: str = "text") -> None:
        if measure not in SCALES:
            raise textgym.InvalidArgumentError(f"readability: measure must be one of {', '.join(SCALES)}, got {measure!r}")
        if part not in ("text", "continuation"):
            raise textgym.InvalidArgumentError(f'readability: part must be "text" or "continuation", got {part!r}')
        try:
            from textstat.textstat import textstatistics
        except ImportError:
            raise textgym.MissingExtraError('the reward "readability"', "readability") from None
        self.measure, self.part = measure, part
        self.low, self.high = SCALES[measure]
        self._hardest = self.low if measure == "flesch_reading_ease" else self.high
        self._statistics = textstatistics()
        # For "en" textstat downloads a pronouncing dictionary. Written so, it finds the hyphenation and, as for every language without
        # constants of its own, the English formula, but no dictionary.
        self._statistics.set_lang("EN_US")

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the reading ease, or the grades, (n,), inside the scale."""
        return [self._score(e.text if self.part == "text" else e.continuation) for e in episodes]

    def _score(self, text: str) -> float:
        if not any(character.isalnum() for character in text):
            return self._hardest
        return min(self.high, max(self.low, float(getattr(self._statistics, self.measure)(text))))


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "readability"."""
    register("readability", Readability)
