"""The task's own answers, of its expert or its references, that agents are measured against."""

from collections.abc import Sequence

import numpy as np

from textgym.episode import reference_continuation
from textgym.errors import InvalidArgumentError
from textgym.learning.control_agent import ControlAgent
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay
from textgym.tasks import Prompt, expert_of


class OracleAgent(ControlAgent):
    """Writes each prompt's first reference, or without one what the task's expert would. Learning does nothing.

    That is the right answer or the optimum where the task has one, else what a person wrote.

    The log-probabilities of its texts are unknown, so its KL is nan; words that the task's vocabulary cannot say are left out.

    Args:
        task: As for `textgym.make_agent`; its prompts need references, or the task an expert.
        **settings: Those of `textgym.agent.Agent`. Its `policy` is the language model whose tokens are counted; it writes nothing.
    """

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Take the answers to the prompts through the environment."""
        del rng
        return replay(mdp, prompt_indices, [_answer(mdp, mdp.prompt_set.prompts[i]) for i in prompt_indices])


def _answer(mdp: TokenMDP, prompt: Prompt) -> str:
    """Return the first reference of a prompt as a continuation, or the expert's text, asked for until it ends."""
    if prompt.references:
        return reference_continuation(prompt.text, prompt.references[0])
    expert = expert_of(mdp.task)
    if expert is None:
        raise InvalidArgumentError(f"oracle: the prompt {prompt.text!r:.80} of task {mdp.task.name!r} has no reference to write")
    text = ""
    for _ in range(mdp.max_new_tokens):
        text += (more := expert(prompt, text))
        if not more:
            break
    return text
