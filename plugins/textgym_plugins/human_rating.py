"""The reward "human-rating": the mean rating that people would give a text, predicted by a small network fitted to human ratings."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import textgym

if TYPE_CHECKING:
    from textgym.reward_modeling.models.fitted_reward import FittedReward

MODEL = Path(__file__).parent / "models" / "human_rating"


class HumanRating:
    """Predicted mean human rating of the text; inside -4 (very negative) .. 4 (very positive).

    `part="text"` rates prompt and continuation together, `part="continuation"` the continuation alone. A text without any known word gets a
    neutral 0.03. Repeating a word changes nothing, and scores are limited smoothly: piling up different praise ("best great great love": 2.67)
    pays little more than one word of it ("great": 2.56), yet it pays, so watch "vader", "repetition" and the KL divergence beside it.

    Test split (never used for fitting or choosing), with 95 % bootstrap intervals of Pearson's r:

    | sentences | n | Pearson | Spearman | MSE |
    |---|---|---|---|---|
    | all | 1,854 | 0.795 [0.776, 0.814] | 0.797 | 1.17 |
    | movie | 1,032 | 0.779 [0.754, 0.805] | 0.781 | 1.46 |
    | product | 373 | 0.746 [0.691, 0.793] | 0.749 | 1.17 |
    | tweet | 449 | 0.878 [0.852, 0.901] | 0.876 | 0.52 |

    About 5,000 texts/s of 100 characters in a second of one core. A ridge on n-grams beside a small convolution over word vectors (the scorer
    "compact" of textgym.reward_modeling), fitted by `make human-rating` to 13,816 English sentences rated by people and to 4,000 runs of
    words out of them rated by a larger model.

    Source: the ratings of Hutto and Gilbert (2014), "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
    ICWSM; see data/human_ratings/README.md.
    """

    low, high = -4.0, 4.0
    deterministic = True
    version = "2"
    license = "MIT"

    def __init__(self, part: str = "text") -> None:
        if part not in ("text", "continuation"):
            raise textgym.InvalidArgumentError(f'human-rating: part must be "text" or "continuation", got {part!r}')
        self.part = part
        self.model = _model()

    def __reduce__(self) -> tuple[type["HumanRating"], tuple[str]]:
        return HumanRating, (self.part,)  # a copy in another process reads the model itself; its caches cannot be sent

    def rate(self, text: str) -> float:
        """Return the predicted rating of one text."""
        return float(self.model.score_texts([text])[0])

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the predicted ratings, (n,), inside -4..4."""
        texts = [episode.text if self.part == "text" else episode.continuation for episode in episodes]
        return [float(score) for score in self.model.score_texts(texts)]


@cache
def _model() -> "FittedReward":
    from textgym.reward_modeling.models.fitted_reward import FittedReward

    return FittedReward(str(MODEL), check_versions=False)  # it comes with the package, whatever that is built on


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "human-rating"."""
    register("human-rating", HumanRating)
