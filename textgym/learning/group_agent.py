"""GroupAgent: the loop of agents that write several texts per prompt, compare them, and take clipped steps over a few epochs."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import MicroBatch, micro_batches
from textgym.learning.text_agent import TextAgent
from textgym.policies.generation import GeneratedText
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task

Floats = NDArray[np.float64]


class GroupAgent(TextAgent):
    """An agent that gives every text one advantage among the texts of its prompt. Subclasses implement `advantages` and `loss`.

    Args:
        task: As for `Agent`.
        group_size: Texts per prompt; `n_envs` must be a multiple of it.
        n_epochs: Passes over the texts of an iteration.
        n_minibatches: Optimizer steps per pass, each on an equal share of the texts.
        clip_range: How far the ratio of new to old probability may move from 1.
        **settings: Those of `TextAgent` and `Agent`.
    """

    search_space: ClassVar[SearchSpace] = {
        "group_size": Choice((4, 8, 16)),
        "n_epochs": Range(1, 4),
        "n_minibatches": Choice((1, 2, 4)),
        "clip_range": Range(0.1, 0.4),
    }

    def __init__(
        self,
        task: str | Task,
        group_size: int = 8,
        n_epochs: int = 2,
        n_minibatches: int = 2,
        clip_range: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(task, **settings)
        if group_size < 2 or self.env.num_envs % group_size:
            raise InvalidArgumentError(
                f"n_envs={self.env.num_envs} must be a multiple of group_size={group_size}, which must be at least 2"
            )
        if n_epochs < 1 or n_minibatches < 1:
            raise InvalidArgumentError(f"n_epochs and n_minibatches must be at least 1, got {n_epochs} and {n_minibatches}")
        if not 0 < clip_range < 1:
            raise InvalidArgumentError(f"clip_range must be between 0 and 1, got {clip_range}")
        self.group_size, self.n_epochs, self.n_minibatches, self.clip_range = group_size, n_epochs, n_minibatches, clip_range

    @abstractmethod
    def advantages(self, scores: Floats) -> Floats:
        """Return what each text was worth, (n,), from the scores of texts whose groups lie one after the other; nan stays nan."""

    @abstractmethod
    def loss(self, batch: MicroBatch, log_prob: Tensor, advantages: Tensor, n_texts: int, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Return a micro-batch's part of the loss, a scalar, and where the clip stopped the gradient, bool per ratio.

        Args:
            batch: Whole texts with the column "old" (log-probabilities when written) and, with a reference model, "reference".
            log_prob: (T,) with gradients.
            advantages: (texts of the batch,).
            n_texts, n_tokens: Of the whole optimizer step, which the parts are shares of.
        """

    def update(self, texts: Sequence[GeneratedText], advantages: Floats, columns: Mapping[str, Sequence[NDArray[np.floating]]]) -> None:
        """Take `n_epochs` passes of `n_minibatches` steps over the texts whose advantage is finite, and record the figures' means."""
        kept: list[int] = np.flatnonzero(np.isfinite(advantages)).tolist()  # less those that the reward gave up
        if not kept:
            return
        steps: list[dict[str, float]] = []
        for _ in range(self.n_epochs):
            for part in np.array_split(self.rng.permutation(kept), min(self.n_minibatches, len(kept))):
                steps.append(self.optimisation.step(self.losses(texts, advantages, columns, part.tolist()), self.progress))
        self.n_tokens_trained += self.n_epochs * sum(len(texts[i].action_ids) for i in kept)
        self.log_update({name: float(np.mean([s[name] for s in steps])) for name in steps[0]})

    def losses(
        self, texts: Sequence[GeneratedText], advantages: Floats, columns: Mapping[str, Sequence[NDArray[np.floating]]], part: Sequence[int]
    ) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the parts of one optimizer step's loss on the texts `part`, each with its figures."""
        n_tokens = sum(len(texts[i].action_ids) for i in part)
        for batch in micro_batches(texts, self.batch_size, self.device, columns, part):
            _, log_prob, entropy = self.policy.evaluate_actions(batch.packed, batch.packed.actions)
            worth = torch.from_numpy(advantages[batch.indices]).to(log_prob)
            loss, clipped = self.loss(batch, log_prob, worth, len(part), n_tokens)
            with torch.no_grad():
                log_ratio = log_prob - batch.columns["old"]
                figures = {
                    "loss": loss.item(),
                    "approx_kl": (log_ratio.expm1() - log_ratio).sum().item() / n_tokens,
                    "clip_fraction": clipped.sum().item() / (n_tokens if len(clipped) == len(batch) else len(part)),
                    "entropy_loss": -entropy.sum().item() / n_tokens,
                }
            yield loss, figures
