"""LLMAgent: the interface of all agents over a served language model, whose texts are replayed token by token."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.agent import Agent
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay
from textgym.text_source import WORDS_PER_TOKEN, LLMTextSource

ROOM = 2  # served tokens asked for per local token of the budget: the tokenizers differ, and what is too much is cut


class LLMAgent(Agent):
    """See `textgym_agents.llm.llm` for the arguments. Its `policy` is the local model whose tokens are counted; it writes nothing."""

    learns = False

    def __init__(self, task: Any, settings: Mapping[str, Any], source: LLMTextSource) -> None:
        super().__init__(task, **settings)
        self.source = source
        self.policy = self.make_policy()

    def learn(self, total_tokens: int) -> "LLMAgent":
        """Count the tokens and learn nothing from them."""
        self.n_tokens += total_tokens
        return self

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Ask for one text per prompt and take it through the environment; without `rng`, at temperature 0."""
        budget = mdp.max_new_tokens
        texts = self.source.generate(
            [mdp.prompt_set.prompts[i].text for i in prompt_indices],
            max_tokens=ROOM * budget,
            max_words=max(1, int(budget * WORDS_PER_TOKEN)),
            seed=None if rng is None else int(rng.integers(2**31)),
            temperature=0.0 if rng is None else None,
        )
        return replay(mdp, prompt_indices, texts)
