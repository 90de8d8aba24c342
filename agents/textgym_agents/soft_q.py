"""Soft Q-learning on a language model: the policy's log-probabilities and the value head are the Q function."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import MicroBatch
from textgym.learning.q_agent import QAgent
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.generation import GeneratedText
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class SoftQAgent(QAgent):
    """Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165) with path consistency (Nachum et al. 2017, arXiv:1702.08892).

    Q(s, a) = V(s) + α log(π(a|s) / π_ref(a|s)), so π is exactly π_ref exp((Q − V) / α) and V is α log Σ_a π_ref exp(Q / α): the first policy
    is the language model itself. Targets are r + γ V(s'), mixed along the text by λ. The optimum is that of the reward less α times the KL
    with π_ref; without a reference model π_ref is 1, and α rewards entropy.

    Args:
        task: As for `textgym.make_agent`.
        alpha: α, in reward units per nat. It takes the place of `kl_coef`, which must be left out or 0.
        **settings: Those of `textgym.learning.q_agent.QAgent` (`path_lambda`, `replay_size`, `updates`, `tau`, ...), `TextAgent`, `Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"kl_coef": None, "alpha": Range(0.03, 0.5, log=True)}

    def __init__(self, task: str | Task, alpha: float = 0.1, **settings: Any) -> None:
        if not alpha > 0:
            raise InvalidArgumentError(f"alpha must be greater than 0, got {alpha}")
        if settings.get("kl_coef"):
            raise InvalidArgumentError(f"soft-q: alpha is the coefficient of the KL; leave kl_coef={settings['kl_coef']} out")
        super().__init__(task, **{**settings, "kl_coef": 0.0})
        self.alpha = alpha

    def rewards_to_keep(self, texts: Sequence[GeneratedText]) -> tuple[list[NDArray[np.float64]], float]:
        """Return the task's rewards (Q holds the KL already), and the KL."""
        return [t.rewards for t in texts], self.penalised_rewards(texts)[1]

    def columns(self, texts: Sequence[GeneratedText]) -> dict[str, list[NDArray[np.float64]]]:
        """Return log π_ref of each token, 0 without a reference model."""
        zeros = [np.zeros(len(t.action_ids)) for t in texts]
        return {"reference": zeros if self.reference is None else self.reference_log_probs(texts)}

    def q_of_tokens(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return V and α log(π/π_ref) of the policy."""
        return self._soft(self.policy, batch)

    def target_values(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return V and α log(π/π_ref) of the target network."""
        return self._soft(self.target, batch)

    def _soft(self, policy: CausalLMPolicy, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        values, log_prob, _ = policy.evaluate_actions(batch.packed, batch.packed.actions)
        return values, self.alpha * (log_prob - batch.columns["reference"])
