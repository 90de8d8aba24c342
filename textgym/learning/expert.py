"""ExpertTokens: the token that a task's expert would choose after any prefix of a text."""

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.mdp import TokenMDP
from textgym.tasks import expert_of


class ExpertTokens:
    """Asks the expert of a task, who speaks text, for tokens.

    Args:
        mdp: Its task must have an expert; its split holds the prompts.
    """

    def __init__(self, mdp: TokenMDP) -> None:
        expert = expert_of(mdp.task)
        if expert is None:
            raise InvalidArgumentError(
                f"task {mdp.task.name!r} has no expert who knows the next token of any prefix: give the Task an `expert`, or learn from its "
                f"references with agent 'bc'"
            )
        self.mdp, self._expert = mdp, expert
        self._end = min(mdp.vocabulary.eos_ids)
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}  # a prefix is asked about once, until `forget`

    def token(self, prompt_index: int, chosen: tuple[int, ...]) -> int:
        """Return the token that the expert would choose.

        Args:
            prompt_index: Which prompt of the split.
            chosen: Ids of the continuation so far. Where the text has ended, it is the end token.

        Raises:
            InvalidArgumentError: The expert wants a token that the task does not allow.
        """
        key = prompt_index, chosen
        if key not in self._known:
            self._known[key] = self._ask(prompt_index, chosen)
        return self._known[key]

    def labels(self, prompt_index: int, action_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the expert's token at every prefix of a text, (T,) int64."""
        ids = tuple(action_ids.tolist())
        return np.array([self.token(prompt_index, ids[:t]) for t in range(len(ids))], np.int64)

    def forget(self) -> None:
        """Free what was asked so far."""
        self._known.clear()

    def _ask(self, prompt_index: int, chosen: tuple[int, ...]) -> int:
        mdp, vocabulary = self.mdp, self.mdp.vocabulary
        prompt = mdp.prompt_set.prompts[prompt_index]
        if vocabulary.eos_ids & set(chosen):
            return self._end
        (text,) = vocabulary.decode_continuations([mdp.prompt_set.ids[prompt_index]], [list(chosen)])
        if any(stop in text for stop in mdp.task.stop):
            return self._end
        wanted = self._expert(prompt, text)
        ids = vocabulary.tokenizer(wanted, add_special_tokens=False, verbose=False)["input_ids"] if wanted else [self._end]
        if not ids or not mdp.allowed_mask[ids[0]]:
            raise InvalidArgumentError(
                f"the expert of task {mdp.task.name!r} wants {wanted or 'to end'!r} after {prompt.text + text!r:.120}, which the task does not allow"
            )
        return int(ids[0])
