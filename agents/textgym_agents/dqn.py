"""DQN on tokens: Double-Q with a dueling head, a target network and replay."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.dueling_q_agent import DuelingQAgent
from textgym.learning.micro_batches import MicroBatch
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, generate
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class DQNAgent(DuelingQAgent):
    """Deep Q-learning (Mnih et al. 2015) with Double-Q (van Hasselt et al. 2016, arXiv:1509.06461) and a dueling Q (Wang et al. 2016).

    Q(s, a) = V(s) + β (l(s, a) − max_b l(s, b)) with the value head V and the language model's logits l (arXiv:1511.06581, equation 8). The
    greedy policy is argmax l; softmax(Q / β) is the language model, which explores (Boltzmann exploration). The target is
    r + γ Q_target(s', argmax_b Q(s', b)), mixed along the text by λ. Texts are written greedily in evaluation. Stable-baselines3's DQN is not
    used: its replay copies the whole prefix twice per token. A `top_k` bounds what is written, not what Q is known of.

    The reward holds `kl_coef` log π_ref(a|s), the KL of a greedy policy (Jaques et al. 2017, arXiv:1611.02796). With `beta` equal to
    `kl_coef` the first Q is then right wherever the task's reward does not depend on the token, which nearly all of the vocabulary, never
    tried, can only be presumed to be; without it the greatest error of thousands of tokens is taken for the best token, and the agent ends in
    repeating one word.

    Args:
        task: As for `textgym.make_agent`.
        beta: β, reward units per unit of a logit: the temperature of the exploration.
        **settings: Those of `textgym.learning.q_agent.QAgent` (`path_lambda`, `replay_size`, `updates`, `tau`, ...), `TextAgent`, `Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"beta": Range(0.03, 0.5, log=True)}

    def __init__(self, task: str | Task, beta: float = 0.1, **settings: Any) -> None:
        if not beta > 0:
            raise InvalidArgumentError(f"beta must be greater than 0, got {beta}")
        super().__init__(task, **settings)
        self.beta = beta

    def q_of_tokens(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return max_a Q and the advantage of the chosen token, at most 0, of the policy."""
        hidden, logits = self.hidden_and_logits(self.policy, batch, top_k=False)
        self._best_tokens = logits.argmax(-1)
        return self.policy.value_head(hidden).squeeze(-1), self._advantage(logits, batch.packed.actions)

    def target_values(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return Q_target of the policy's best token (`q_of_tokens` has just seen it), and how much more or less it gives the chosen one."""
        hidden, logits = self.hidden_and_logits(self.target, batch, top_k=False)
        best = self._advantage(logits, self._best_tokens)
        return self.target.value_head(hidden).squeeze(-1) + best, self._advantage(logits, batch.packed.actions) - best

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Write greedily, whatever `rng`: every token has probability 1, and a KL with the reference model is −log π_ref."""
        del rng
        return [replace(t, log_probs=np.zeros_like(t.log_probs)) for t in generate(self.policy, mdp, prompt_indices, None)]

    def _advantage(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Return β (l(s, a) − max_b l(s, b)), (T,)."""
        return self.beta * (logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.amax(-1))
