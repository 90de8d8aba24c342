"""Uniformly random tokens, the floor of every comparison."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.learning.control_agent import ControlAgent
from textgym.mdp import TokenMDP
from textgym.policies.generation import Choice, GeneratedText, write_rows


class RandomAgent(ControlAgent):
    """Tokens drawn uniformly from those that the task allows; learning does nothing.

    Args:
        task: As for `textgym.make_agent`.
        **settings: Those of `textgym.agent.Agent`. Its `policy` is the language model whose tokens are drawn; it writes nothing.
    """

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Write one text per prompt; without `rng` the draws are those of the agent's seed."""
        rng = np.random.default_rng(self.seed) if rng is None else rng
        allowed = np.flatnonzero(mdp.allowed_mask)
        tokens = rng.choice(allowed, size=(len(prompt_indices), mdp.max_new_tokens))
        log_prob = np.float32(-np.log(len(allowed)))
        texts: list[GeneratedText] = []
        for start in range(0, len(prompt_indices), mdp.n_rows):
            part = tokens[start : start + mdp.n_rows]

            def choose(step: int, part: NDArray[np.int64] = part) -> Choice:
                return part[:, step], np.full(len(part), log_prob, np.float32)

            texts += write_rows(mdp, list(prompt_indices[start : start + len(part)]), choose)
        return texts
