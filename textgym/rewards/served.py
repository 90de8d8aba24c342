"""Served: any reward called side by side, with time-outs, retries and a declared way to fail."""

from collections.abc import Sequence
from dataclasses import replace

from textgym.episode import Episode
from textgym.rewards.composition import Composite
from textgym.rewards.protocol import Array, RewardSpec
from textgym.rewards.reward import Reward
from textgym.rewards.serving import OnFailure, Serving


class Served(Composite):
    """A slow or remote reward, called as `Serving` says; the arguments after the reward are its attributes."""

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
        self.inside = (Reward(tuple(replace(term, serving=serving) for term in self.inside[0].terms)),)
        (first,) = self.inside
        if len(first.terms) == 1 and first.terms[0].weight == 1:
            self.low, self.high = getattr(first.terms[0].model, "low", float("-inf")), getattr(first.terms[0].model, "high", float("inf"))

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores; nan for episodes given up under `on_failure="drop"`."""
        (scores,), values = self.inner_terms(episodes, learning)
        return scores, values

    def identity(self) -> str:
        """Return the identity of the reward inside: how it is called does not change its scores."""
        return self.inside[0].identity()
