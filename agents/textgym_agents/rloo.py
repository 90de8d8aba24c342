"""RLOO: REINFORCE leave-one-out on whole texts, clipped, over a few epochs."""

from typing import Any

import numpy as np
from torch import Tensor

from textgym.learning.clipped_surrogate import clipped_surrogate
from textgym.learning.group_agent import Floats, GroupAgent
from textgym.learning.micro_batches import MicroBatch
from textgym.learning.returns import leave_one_out, whitened
from textgym.tasks import Task


class RLOOAgent(GroupAgent):
    """REINFORCE leave-one-out (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740) with a clipped ratio of whole texts, as TRL has it.

    A text y is one action with the probability π(y) = Π_t π(a_t | s_t); its reward R, less `kl_coef` · log(π(y)/π_ref(y)), is compared with
    the mean of the other texts of its prompt, and the loss is the mean of −min(r Â, clip(r, 1 − ε, 1 + ε) Â) with r = π(y)/π_old(y). With one
    epoch, one minibatch and `normalize_advantage=False` r is 1, and it is RLOO as in the papers; the token-level variant with one step per
    iteration is "reinforce" with baseline="leave-one-out".

    Args:
        task: As for `textgym.make_agent`.
        normalize_advantage: Divide advantages by their standard deviation over the iteration.
        **settings: Those of `textgym.learning.group_agent.GroupAgent` (`group_size`, `n_epochs`, `n_minibatches`, `clip_range`),
            `textgym.learning.text_agent.TextAgent` (`learning_rate`, `kl_coef`, ...) and `textgym.agent.Agent`.
    """

    def __init__(self, task: str | Task, normalize_advantage: bool = True, **settings: Any) -> None:
        super().__init__(task, **settings)
        self.normalize_advantage = normalize_advantage

    def iterate(self) -> int:
        """Write groups of texts, compare each with the others of its group, take clipped steps."""
        texts = self.write_groups(self.group_size)
        rewards, kl = self.penalised_rewards(texts)
        self.log_texts(texts, kl)
        advantages = self.advantages(np.array([r.sum() for r in rewards]))
        self.update(texts, advantages, {"old": [t.log_probs for t in texts]})
        return sum(len(t.action_ids) for t in texts)

    def advantages(self, scores: Floats) -> Floats:
        """Return scores less the mean of the others of their group."""
        gaps = scores - leave_one_out(scores, self.group_size)
        known = np.isfinite(gaps)
        if self.normalize_advantage and known.any():
            gaps[known] = whitened([gaps[known]], shift=False)[0]
        return gaps

    def loss(self, batch: MicroBatch, log_prob: Tensor, advantages: Tensor, n_texts: int, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Return the clipped loss of whole texts."""
        del n_tokens
        log_ratio = batch.sum_by_text(log_prob - batch.columns["old"])
        text_loss, clipped = clipped_surrogate(log_ratio, advantages, self.clip_range, self.clip_range)
        return text_loss.sum() / n_texts, clipped
