"""RewardSession: a reward at work in an environment - dense terms are paid token by token and summed up, the others at the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from textgym.episode import Episode
from textgym.errors import RewardError, one_line
from textgym.rewards.protocol import Array, TokenRewardModel, TokenScorer
from textgym.tokenization import Vocabulary

if TYPE_CHECKING:
    from textgym.rewards.reward import Reward


class RewardSession:
    """The state of a reward over running episodes.

    Args:
        reward: The reward.
        n_rows: Number of episodes side by side.
        vocabulary: Of the tokens that dense terms are shown.
        learning: True in training: running statistics of the terms may move.
    """

    def __init__(self, reward: "Reward", n_rows: int, vocabulary: Vocabulary, learning: bool = False) -> None:
        self.reward, self.learning = reward, learning
        self.scorers: dict[str, TokenScorer] = {}
        for term in reward.terms:
            if isinstance(term.model, TokenRewardModel):
                scorer = term.model.token_scorer(n_rows, vocabulary)
                if scorer is not None:
                    self.scorers[term.name] = scorer
        self._sums = {name: np.zeros(n_rows) for name in self.scorers}
        self._vocabulary = vocabulary

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new episodes in `rows`."""
        for name, scorer in self.scorers.items():
            scorer.start(rows, prompts)
            self._sums[name][list(rows)] = 0.0

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Array:
        """Return the weighted dense reward of the newest token of each row, (len(rows),)."""
        total = np.zeros(len(rows))
        for term in self.reward.terms:
            if term.name in self.scorers:
                tokens = [Episode("", self._vocabulary.decode([[i]])[0]) for i in token_ids]
                try:
                    raw = self.scorers[term.name].step(rows, token_ids)
                except Exception as error:
                    raise RewardError(f"{term} raised {one_line(error)} - on the tokens {[t.text for t in tokens]!r:.120}") from error
                scores = term.checked(raw, tokens)
                self._sums[term.name][list(rows)] += scores
                total += term.weight * scores
        return total

    def finish(self, rows: Sequence[int], episodes: Sequence[Episode]) -> tuple[Array, dict[str, Array]]:
        """Return what the end of the episodes adds to the reward, (len(rows),), and the episode's value of every term by name."""
        total, values = np.zeros(len(rows)), {}
        for term in self.reward.terms:
            if term.name in self.scorers:
                at_end = getattr(self.scorers[term.name], "finish", None)
                if at_end is not None:
                    last = term.checked(at_end(rows), episodes)
                    self._sums[term.name][list(rows)] += last
                    total += term.weight * last
                values[term.name] = self._sums[term.name][list(rows)].copy()
            else:
                scores, inside = term.score_terms(episodes, self.learning)
                total += term.weight * scores
                values[term.name] = scores
                values.update({name: value for name, value in inside.items() if name not in values})
        return total, values
