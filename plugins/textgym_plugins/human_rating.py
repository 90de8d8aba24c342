"""The reward "human-rating": the mean rating that people would give a text, predicted by a linear n-gram model."""

import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import textgym
from textgym.reward_modeling.scorers.text_features import character_ngrams, ngrams, tokens

DATA = Path(__file__).parent / "data" / "human_ratings"
BLOCKS = ("words", "ngrams", "characters")  # every block is a bag of features with an L2 norm of its own


class HumanRating:
    """Predicted mean human rating of the text; inside -4 (very negative) .. 4 (very positive).

    `part="text"` rates prompt and continuation together, `part="continuation"` the continuation alone. A text without any known n-gram
    gets the neutral -0.09. Repeating a word brings next to nothing, since a feature counts once; piling up different praise
    still pays ("best great great love": 3.65), so watch "vader", "repetition" and the KL divergence beside it.

    Test split (never used for fitting or choosing), with 95 % bootstrap intervals of Pearson's r:

    | sentences | n | Pearson | Spearman | MSE |
    |---|---|---|---|---|
    | all | 1,854 | 0.768 [0.748, 0.787] | 0.773 | 1.31 |
    | movie | 1,032 | 0.752 [0.726, 0.779] | 0.754 | 1.61 |
    | product | 373 | 0.729 [0.677, 0.777] | 0.735 | 1.24 |
    | tweet | 449 | 0.844 [0.816, 0.870] | 0.849 | 0.68 |

    About 7,000 texts/s of 100 characters on one core. Fitted by tools/fit_human_rating.py on 13,816 English sentences rated by people.

    Source: the ratings of Hutto and Gilbert (2014), "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
    ICWSM; see data/human_ratings/README.md.
    """

    low, high = -4.0, 4.0
    deterministic = True
    version = "1"
    license = "MIT"

    def __init__(self, part: str = "text") -> None:
        if part not in ("text", "continuation"):
            raise textgym.InvalidArgumentError(f'human-rating: part must be "text" or "continuation", got {part!r}')
        self.part = part
        with np.load(DATA / "model.npz", allow_pickle=False) as stored:
            self.metadata: dict[str, Any] = json.loads(stored["metadata"].tobytes())
            self._index = {
                block: {feature: i for i, feature in enumerate(stored[block].tobytes().decode().split("\n"))} for block in BLOCKS
            }
            self._weights = {block: stored[f"{block}.weights"].astype(np.float64) for block in BLOCKS}
            self._squares = {block: stored[f"{block}.idf"].astype(np.float64) ** 2 for block in BLOCKS}
        self._damping: dict[str, float] = self.metadata["damping"]
        self._character_ids = lru_cache(32768)(lambda token: tuple(self._known("characters", character_ngrams(token))))

    def __reduce__(self) -> tuple[type["HumanRating"], tuple[str]]:
        return HumanRating, (self.part,)  # a copy in another process reads the model itself; the cache cannot be sent

    def rate(self, text: str) -> float:
        """Return the predicted rating of one text."""
        found = tokens(text)
        total = self._part("words", self._known("words", found)) + self._part("ngrams", self._known("ngrams", ngrams(found)))
        total += self._part("characters", dict.fromkeys(i for token in found for i in self._character_ids(token)))
        return 4.0 * math.tanh(self.metadata["slope"] * total + self.metadata["intercept"])

    def _known(self, block: str, features: Iterable[str]) -> dict[int, None]:
        index = self._index[block]
        return dict.fromkeys(i for feature in features if (i := index.get(feature)) is not None)  # in a fixed order, unlike a set

    def _part(self, block: str, known: dict[int, None]) -> float:
        ids = list(known)
        return float(self._weights[block][ids].sum() / math.sqrt(self._squares[block][ids].sum() + self._damping[block])) if ids else 0.0

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the predicted ratings, (n,), inside -4..4."""
        return [self.rate(episode.text if self.part == "text" else episode.continuation) for episode in episodes]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "human-rating"."""
    register("human-rating", HumanRating)
