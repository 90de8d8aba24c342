"""The task's own references, the human (or right) answer that agents are measured against."""

from collections.abc import Sequence

import numpy as np

from textgym.episode import reference_continuation
from textgym.errors import InvalidArgumentError
from textgym.learning.control_agent import ControlAgent
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay


class OracleAgent(ControlAgent):
    """Writes each prompt's first reference: the right answer where the task has one, else what a person wrote. Learning does nothing.

    The log-probabilities of its texts are unknown, so its KL is nan; words that the task's vocabulary cannot say are left out.

    Args:
        task: As for `textgym.make_agent`; its prompts need references.
        **settings: Those of `textgym.agent.Agent`. Its `policy` is the language model whose tokens are counted; it writes nothing.
    """

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Take the references of the prompts through the environment."""
        del rng
        prompts = [mdp.prompt_set.prompts[i] for i in prompt_indices]
        for prompt in prompts:
            if not prompt.references:
                raise InvalidArgumentError(f"oracle: the prompt {prompt.text!r:.80} of task {mdp.task.name!r} has no reference to write")
        return replay(mdp, prompt_indices, [reference_continuation(p.text, p.references[0]) for p in prompts])
