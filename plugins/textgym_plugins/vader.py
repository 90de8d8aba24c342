"""The reward "vader": VADER's rule-based sentiment of a text."""

from collections.abc import Sequence
from typing import Any

import textgym


class Vader:
    """VADER's compound sentiment times four; -4 (very negative) .. 4 (very positive), 0 for a text without sentiment words.

    `part="text"` scores prompt and continuation together, `part="continuation"` the continuation alone.

    An independent second opinion on "human-rating": a lexicon with hand-written rules, nothing fitted here. Independent, but not blind:
    its authors rated the lexicon beside the very sentences that "human-rating" is fitted on. On the test split of those sentences its
    Pearson correlation with the mean human rating is 0.556 (95 % bootstrap interval
    0.523 to 0.590, n = 1,854).

    Source: Hutto and Gilbert (2014), "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM.
    """

    low, high = -4.0, 4.0
    deterministic = True
    version = "1"
    license = "MIT"

    def __init__(self, part: str = "text") -> None:
        if part not in ("text", "continuation"):
            raise textgym.InvalidArgumentError(f'vader: part must be "text" or "continuation", got {part!r}')
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self.part = part
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return four times the compound sentiment, (n,), in -4..4."""
        texts = [episode.text if self.part == "text" else episode.continuation for episode in episodes]
        return [4.0 * float(self._analyzer.polarity_scores(text)["compound"]) for text in texts]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "vader"."""
    register("vader", Vader)
