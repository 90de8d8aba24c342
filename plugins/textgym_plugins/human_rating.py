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
    """DOC"""

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
