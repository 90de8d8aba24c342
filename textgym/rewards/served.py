"""Served: any reward called side by side, with time-outs, retries and a declared way to fail."""

import copy
from collections.abc import Sequence
from dataclasses import replace

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.rewards.composition import Composite, range_of
from textgym.rewards.protocol import Array, CompositeRewardModel, RewardModel, RewardSpec
from textgym.rewards.reward import Reward
from textgym.rewards.serving import OnFailure, Serving
from textgym.rewards.term import RewardTerm


class Served(Composite):
    """A slow or remote reward, called as `Serving` says; the arguments after the reward are its attributes.

    Paid at the end of the episode: it is whole texts that are sent.
    """

    def __init__(
        self,
        reward: "RewardSpec | Reward",
        workers: int = 8,
        batch_size: int = 1,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        on_failure: OnFailure = "fail",
    ) -> None:
        super().__init__(reward)
        serving = Serving(workers, batch_size, timeout, retries, backoff, on_failure)
        self.inside = (_called(self.inside[0], serving),)
        self.low, self.high = range_of(self.inside[0])

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores; nan for episodes given up under `on_failure="drop"`."""
        (scores,), values = self.inner_terms(episodes, learning)
        return scores, values

    def identity(self) -> str:
        """Return the identity of the reward inside: how it is called does not change its scores."""
        return self.inside[0].identity()


def _called(reward: Reward, serving: Serving) -> Reward:
    """Return the reward with every model in it called as `serving` says, those inside others too; an inner "served" keeps its own."""
    return Reward(tuple(replace(term, serving=serving, model=_reached(term, serving)) for term in reward.terms))


def _reached(term: RewardTerm, serving: Serving) -> RewardModel:
    if isinstance(term.model, Served) or not isinstance(term.model, CompositeRewardModel):
        return term.model
    if not isinstance(term.model, Composite):
        raise InvalidArgumentError(f"served: cannot reach the rewards inside {term}: put served(...) around each of them")
    outer = copy.copy(term.model)
    outer.inside = tuple(_called(reward, serving) for reward in outer.inside)
    return outer
