"""RewardSession: a reward at work in an environment - dense terms are paid token by token and summed up, the others at the end."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from textgym.episode import Episode
from textgym.errors import RewardError, one_line
from textgym.rewards.protocol import Array, TokenScorer
from textgym.rewards.term import RewardTerm, add_inner
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
            scorer = scorer_of(term.model, n_rows, vocabulary)
            if scorer is not None:
                self.scorers[term.name] = scorer
        self._sums = {name: np.zeros(n_rows) for name in self.scorers}
        self._vocabulary = vocabulary

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new episodes in `rows`."""
        for term, scorer in self._dense():
            try:
                scorer.start(rows, prompts)
            except Exception as error:
                raise RewardError(f"{term} raised {one_line(error)} - at the start of episodes in the rows {list(rows)!r:.80}") from error
            self._sums[term.name][list(rows)] = 0.0

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Array:
        """Return the weighted dense reward of the newest token of each row, (len(rows),)."""
        total, tokens = np.zeros(len(rows)), _Tokens(self._vocabulary, token_ids)
        for term, scorer in self._dense():
            try:
                raw = scorer.step(rows, token_ids)
            except Exception as error:
                texts = [token.text for token in tokens]
                raise RewardError(f"{term} raised {one_line(error)} - on the tokens {texts!r:.120}") from error
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
                    try:
                        raw = at_end(rows)
                    except Exception as error:
                        raise RewardError(f"{term} raised {one_line(error)} - at the end of {episodes[0].text!r:.120}") from error
                    last = term.checked(raw, episodes)
                    self._sums[term.name][list(rows)] += last
                    total += term.weight * last
                values[term.name] = self._sums[term.name][list(rows)].copy()
            else:
                scores, inside = term.score_terms(episodes, self.learning)
                total += term.weight * scores
                values[term.name] = scores
                add_inner(values, term.name, inside)
        return total, values

    def _dense(self) -> list[tuple[RewardTerm, TokenScorer]]:
        return [(term, self.scorers[term.name]) for term in self.reward.terms if term.name in self.scorers]


def scorer_of(model: object, n_rows: int, vocabulary: Vocabulary) -> TokenScorer | None:
    """Return the token scorer of a `TokenRewardModel`, None for another or if it declines."""
    make: Callable[[int, Vocabulary], TokenScorer | None] | None = getattr(model, "token_scorer", None)
    return None if make is None else make(n_rows, vocabulary)


class _Tokens(Sequence[Episode]):
    """The newest tokens as episodes for a message; they are decoded only if one is looked at."""

    def __init__(self, vocabulary: Vocabulary, token_ids: Sequence[int]) -> None:
        self._vocabulary, self._ids = vocabulary, token_ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | Sequence[Episode]:
        if isinstance(index, slice):
            return _Tokens(self._vocabulary, self._ids[index])
        return Episode("", self._vocabulary.decode([[self._ids[index]]])[0])
