"""Best-of-n: the untrained language model, of whose texts the reward picks the best; the control that costs no training."""

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.learning.control_agent import ControlAgent
from textgym.learning.text_groups import groups_of, place_of_best, total_rewards
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, generate
from textgym.tasks import Task


class BestOfNAgent(ControlAgent):
    """The best of n texts of the untrained language model by the reward; learning does nothing.

    It needs the reward when it writes, n times as many tokens, and no training. The KL of a text with the language model is
    log n − (n − 1) / n nats at most (Beirami et al. 2024, arXiv:2401.01879); its tokens' log-probabilities are raised by an equal share of it.

    Args:
        task: As for `textgym.make_agent`.
        n: Texts to choose from.
        **settings: Those of `textgym.agent.Agent`.
    """

    def __init__(self, task: str | Task, n: int = 8, **settings: Any) -> None:
        if n < 1:
            raise InvalidArgumentError(f"n must be at least 1, got {n}")
        super().__init__(task, **settings)
        self.n = self.scored_per_text = n

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Write n texts per prompt and return each prompt's best; without `rng` the most probable text."""
        if rng is None:
            return generate(self.policy, mdp, prompt_indices, None)
        texts = generate(self.policy, mdp, np.repeat(np.asarray(prompt_indices), self.n).tolist(), rng)
        best = []
        for group in groups_of(len(texts), self.n):
            chosen = texts[group][place_of_best(total_rewards(texts[group]))]
            gain = (log(self.n) - (self.n - 1) / self.n) / len(chosen.action_ids)
            best.append(
                GeneratedText(chosen.prompt_ids, chosen.action_ids, chosen.log_probs + np.float32(gain), chosen.rewards, chosen.info)
            )
        return best
