"""EpochAgent: the loop of agents that take clipped steps on an iteration's texts over a few epochs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.text_agent import TextAgent
from textgym.policies.generation import GeneratedText
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task


class EpochAgent(TextAgent):
    """An agent whose iterations go over their texts several times. Subclasses implement `iterate` and a loss.

    Args:
        task: As for `Agent`.
        n_epochs: Passes over the texts of an iteration.
        n_minibatches: Optimizer steps per pass, each on an equal share of the texts.
        clip_range: How far the ratio of new to old probability may move from 1.
        **settings: Those of `TextAgent` and `Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"n_epochs": Range(1, 4), "n_minibatches": Choice((1, 2, 4)), "clip_range": Range(0.1, 0.4)}

    def __init__(self, task: str | Task, n_epochs: int = 2, n_minibatches: int = 2, clip_range: float = 0.2, **settings: Any) -> None:
        super().__init__(task, **settings)
        if n_epochs < 1 or n_minibatches < 1:
            raise InvalidArgumentError(f"n_epochs and n_minibatches must be at least 1, got {n_epochs} and {n_minibatches}")
        if not 0 < clip_range < 1:
            raise InvalidArgumentError(f"clip_range must be between 0 and 1, got {clip_range}")
        self.n_epochs, self.n_minibatches, self.clip_range = n_epochs, n_minibatches, clip_range

    def take_steps(
        self,
        texts: Sequence[GeneratedText],
        kept: Sequence[int],
        losses: Callable[[list[int]], Iterable[tuple[Tensor, Mapping[str, float]]]],
    ) -> None:
        """Take `n_epochs` passes of `n_minibatches` steps, and record the figures' means.

        Args:
            texts: Of the iteration.
            kept: Which of them are learnt from.
            losses: From the texts of a step, as places in `texts`, to the parts of its loss with their figures.
        """
        if not kept:
            return
        steps: list[dict[str, float]] = []
        for _ in range(self.n_epochs):
            for part in np.array_split(self.rng.permutation(kept), min(self.n_minibatches, len(kept))):
                steps.append(self.optimisation.step(losses(part.tolist()), self.progress))
        self.n_tokens_trained += self.n_epochs * sum(len(texts[i].action_ids) for i in kept)
        self.log_update({name: float(np.mean([s[name] for s in steps])) for name in steps[0]})


@torch.no_grad()
def step_figures(loss: Tensor, log_ratio: Tensor, entropy: Tensor, clipped: Tensor, n_tokens: int, n_ratios: int) -> dict[str, float]:
    """Return the figures of a part of a clipped step.

    Args:
        loss: A scalar.
        log_ratio: (T,) log π − log π_old of the part's tokens.
        entropy: (T,) nats.
        clipped: Where the clip stopped the gradient, bool per ratio.
        n_tokens, n_ratios: Of the whole step, which the parts are shares of.
    """
    return {
        "loss": loss.item(),
        "approx_kl": (log_ratio.expm1() - log_ratio).sum().item() / n_tokens,
        "clip_fraction": clipped.sum().item() / n_ratios,
        "entropy_loss": -entropy.sum().item() / n_tokens,
    }
