"""The reward contract: what an object must offer to be a reward model, for whole episodes or token by token."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.tokenization import Vocabulary

Scores: TypeAlias = Any  # sequence, NumPy array or torch tensor of n finite numbers; checked where it enters
Array: TypeAlias = NDArray[np.float64]


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores finished episodes."""

    def score(self, episodes: Sequence[Episode]) -> Scores:
        """Return one finite number per episode, (n,), each independent of the others in the batch. May be a coroutine (`async def`)."""


@runtime_checkable
class CompositeRewardModel(Protocol):
    """A reward model made of others: it also tells what they said. Its scores are trusted, theirs having been checked."""

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores, (n,), and the values inside by name, (n,) each; nan where an episode was dropped.

        Args:
            episodes: Finished episodes.
            learning: True in training: running statistics may move.
        """


@runtime_checkable
class DetailedRewardModel(Protocol):
    """A reward model that tells more than its score: how uncertain it is, whether it abstained. Both are checked and logged."""

    def score_details(self, episodes: Sequence[Episode]) -> tuple[Scores, dict[str, Array]]:
        """Return the scores, as `score` does, and further figures by name, (n,) each; the same names for any batch, an empty one too."""


@runtime_checkable
class TokenVectorRewardModel(Protocol):
    """A reward model that says what each token of a finished episode is worth. The episode's score is their sum."""

    def score_tokens(self, episodes: Sequence[Episode]) -> Sequence[Scores]:
        """Return one vector per episode, as long as its `continuation_ids`."""


class TokenScorer(Protocol):
    """A dense reward over rows of a running batch; its cost per token must not grow with the prefix.

    It may also have `finish(rows) -> (len(rows),)`: what the end of these rows' episodes adds to the reward of their last token.
    """

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin a new episode in each of `rows`, with these prompt ids."""

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Scores:
        """Return the reward of the newest token of each of `rows`, (len(rows),)."""


@runtime_checkable
class TokenRewardModel(Protocol):
    """A reward model that can also pay token by token. Its `score` is then only used for finished texts outside an environment."""

    def token_scorer(self, n_rows: int, vocabulary: Vocabulary) -> TokenScorer | None:
        """Return a scorer for a batch of `n_rows` rows, or None to pay at the end of the episode only."""


RewardSpec: TypeAlias = (
    "str | RewardModel | TokenVectorRewardModel | Callable[[Sequence[Episode]], Scores | Awaitable[Scores]] | Mapping[str, float]"
)
