"""Soft Q-learning on a language model: the policy's log-probabilities and the value head are the Q function."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.dueling_q_agent import DuelingQAgent
from textgym.learning.micro_batches import MicroBatch
from textgym.lm.token_distribution import log_prob_and_entropy
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class SoftQAgent(DuelingQAgent):
    """Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165) with path consistency (Nachum et al. 2017, arXiv:1702.08892).

    Q(s, a) = V(s) + α log π(a|s), so π is exactly exp((Q − V) / α) and V is α log Σ_a exp(Q / α): the first policy is the language model
    itself. Targets are r + α log π_ref(a|s) + γ V(s'), mixed along the text by λ. The optimum is that of the reward less α times the KL with
    π_ref; without a reference model π_ref is 1, and α rewards entropy. With λ = 1 the gradient of the advantages is that of REINFORCE with
    the baseline V and a KL penalty (Schulman et al. 2017, arXiv:1704.06440); unlike it, texts of earlier policies serve as well.

    Args:
        task: As for `textgym.make_agent`.
        alpha: α, in reward units per nat. It takes the place of `kl_coef`.
        **settings: Those of `textgym.learning.q_agent.QAgent` (`path_lambda`, `replay_size`, `updates`, `tau`, ...), `TextAgent`, `Agent`.
    """

    refuses: ClassVar[Mapping[str, str]] = {"kl_coef": "alpha is the coefficient of the KL"}
    search_space: ClassVar[SearchSpace] = {"alpha": Range(0.03, 0.5, log=True)}

    def __init__(self, task: str | Task, alpha: float = 0.1, **settings: Any) -> None:
        if not alpha > 0:
            raise InvalidArgumentError(f"alpha must be greater than 0, got {alpha}")
        super().__init__(task, **settings)
        self.alpha = alpha
        self.kl_coef = 0.0 if self.reference_model is None else alpha

    def q_of_tokens(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return V and α log π of the policy."""
        return self._soft(self.policy, batch)

    def target_values(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return V and α log π of the target network."""
        return self._soft(self.target, batch)

    def _soft(self, policy: CausalLMPolicy, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        hidden, logits = self.hidden_and_logits(policy, batch)
        return policy.value_head(hidden).squeeze(-1), self.alpha * log_prob_and_entropy(logits, batch.packed.actions)[0]
