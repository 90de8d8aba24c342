"""A served language model as it is, the opponent that a trained policy is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.learning.control_agent import ControlAgent
from textgym.lm.endpoint import names_api_key
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay
from textgym.tasks import Task
from textgym.text_source import INSTRUCTION, WORDS_PER_TOKEN, Interface, LLMTextSource

ROOM = 2  # served tokens asked for per local token of the budget: the tokenizers differ, and what is too much is cut


class LLMAgent(ControlAgent):
    """A language model behind an OpenAI-compatible endpoint; learning does nothing.

    Its texts are read in the tokens of `model`, the task's own local model, and cut at the same budget as everyone's; what that vocabulary
    cannot say is left out. Their log-probabilities are unknown, so its KL is nan. Its `policy` is the local model whose tokens are counted; it
    writes nothing.

    Args:
        task: As for `textgym.make_agent`.
        base_url, served_model, extra_body: The endpoint's address, its name of the model, and further fields of every request.
        api_key: None for the environment variable OPENAI_API_KEY, "$NAME" for the variable NAME, "none" for none. Settings are stored, so the
            key itself is refused.
        interface, instruction, workers, timeout, retries: See `textgym.text_source.LLMTextSource`.
        **settings: Those of `textgym.agent.Agent`; `temperature` is that of the served model.
    """

    def __init__(
        self,
        task: str | Task,
        base_url: str = "",
        served_model: str = "",
        api_key: str | None = None,
        interface: Interface = "chat",
        instruction: str = INSTRUCTION,
        workers: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
        extra_body: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if not names_api_key(api_key):
            raise InvalidArgumentError(
                'llm: api_key is stored with the agent: put the key into an environment variable and pass "$ITS_NAME", or "none" for no key'
            )
        temperature = settings.get("temperature", 1.0)
        self.source = LLMTextSource(
            base_url, served_model, api_key, interface, instruction, temperature, workers, timeout, retries, extra_body=extra_body
        )
        super().__init__(task, **settings)

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
