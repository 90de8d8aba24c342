"""GroupAgent: the loop of agents that write several texts per prompt, compare them, and take clipped steps over a few epochs."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.learning.epoch_agent import EpochAgent, step_figures
from textgym.learning.micro_batches import MicroBatch, micro_batches
from textgym.policies.generation import GeneratedText
from textgym.search_space import Choice, SearchSpace
from textgym.tasks import Task

Floats = NDArray[np.float64]


class GroupAgent(EpochAgent):
    """An agent that gives every text one advantage among the texts of its prompt. Subclasses implement `advantages` and `loss`.

    Args:
        task: As for `Agent`.
        group_size: Texts per prompt; `n_envs` must be a multiple of it.
        **settings: Those of `EpochAgent`, `TextAgent` and `Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"group_size": Choice((4, 8, 16))}

    def __init__(self, task: str | Task, group_size: int = 8, **settings: Any) -> None:
        super().__init__(task, **settings)
        self.group_size = self.check_group_size(group_size)

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
        self.take_steps(texts, kept, lambda part: self.losses(texts, advantages, columns, part))

    def losses(
        self, texts: Sequence[GeneratedText], advantages: Floats, columns: Mapping[str, Sequence[NDArray[np.floating]]], part: Sequence[int]
    ) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the parts of one optimizer step's loss on the texts `part`, each with its figures."""
        n_tokens = sum(len(texts[i].action_ids) for i in part)
        for batch in micro_batches(texts, self.batch_size, self.device, columns, part):
            _, log_prob, entropy = self.policy.evaluate_actions(batch.packed, batch.packed.actions)
            worth = torch.from_numpy(advantages[batch.indices]).to(log_prob)
            loss, clipped = self.loss(batch, log_prob, worth, len(part), n_tokens)
            n_ratios = n_tokens if len(clipped) == len(batch) else len(part)
            yield loss, step_figures(loss, log_prob - batch.columns["old"], entropy, clipped, n_tokens, n_ratios)
