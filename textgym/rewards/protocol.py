"""The reward contract: what an object must offer to be a reward model, for whole episodes or token by token."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from textgym.episode import Episode
from textgym.tokenization import Vocabulary

Scores: TypeAlias = Any  # sequence, NumPy array or torch tensor of n finite numbers; checked where it enters


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores finished episodes."""

    def score(self, episodes: Sequence[Episode]) -> Scores:
        """Return one finite number per episode, (n,), each independent of the others in the batch."""


class TokenScorer(Protocol):
    """A dense reward over rows of a running batch; its cost per token must not grow with the prefix."""

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin a new episode in each of `rows`, with these prompt ids."""

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Scores:
        """Return the reward of the newest token of each of `rows`, (len(rows),)."""


@runtime_checkable
class TokenRewardModel(Protocol):
    """A reward model that can also pay token by token. Its `score` is then only used for finished texts outside an environment."""

    def token_scorer(self, n_rows: int, vocabulary: Vocabulary) -> TokenScorer | None:
        """Return a scorer for a batch of `n_rows` rows, or None to pay at the end of the episode only."""


RewardSpec: TypeAlias = "str | RewardModel | Callable[[Sequence[Episode]], Scores] | Mapping[str, float]"
