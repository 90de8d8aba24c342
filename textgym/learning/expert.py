"""ExpertTokens: the token that a task's expert would choose after any prefix of a text."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.mdp import TokenMDP
from textgym.tasks import expert_of

Prefix: TypeAlias = tuple[int, tuple[int, ...]]
"""Which prompt of the split, and the ids of the continuation so far."""


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
        self._known: dict[Prefix, int] = {}  # a prefix is asked about once, until `forget`
        self._first_ids: dict[str, int | None] = {"": self._end}  # what the expert has said → its first token, None for none
        self._prompt_texts: dict[int, str] = {}

    def token(self, prompt_index: int, chosen: tuple[int, ...]) -> int:
        """Return the token that the expert would choose; see `tokens`."""
        return self.tokens([(prompt_index, chosen)])[0]

    def tokens(self, asked: Sequence[Prefix]) -> list[int]:
        """Return the token that the expert would choose after each prefix; where a text has ended, it is the end token.

        Raises:
            InvalidArgumentError: The expert wants a token that the task does not allow.
        """
        if new := [key for key in dict.fromkeys(asked) if key not in self._known]:
            self._known.update(zip(new, self._ask(new), strict=True))
        return [self._known[key] for key in asked]

    def labels(self, prompt_indices: Sequence[int], action_ids: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Return the expert's token at every prefix of each text, (T,) int64."""
        chosen = [tuple(ids.tolist()) for ids in action_ids]
        asked = [(index, ids[:t]) for index, ids in zip(prompt_indices, chosen, strict=True) for t in range(len(ids))]
        return np.split(np.array(self.tokens(asked), np.int64), np.cumsum([len(ids) for ids in chosen])[:-1])

    def forget(self) -> None:
        """Free what was asked so far."""
        self._known.clear()

    def _ask(self, asked: Sequence[Prefix]) -> list[int]:
        """Ask about prefixes that are not known yet: all are decoded together, and so are all answers read."""
        mdp, vocabulary = self.mdp, self.mdp.vocabulary
        self._prompt_texts.update((i, vocabulary.decode([mdp.prompt_set.ids[i]])[0]) for i, _ in asked if i not in self._prompt_texts)
        texts = vocabulary.decode_continuations(
            [mdp.prompt_set.ids[i] for i, _ in asked], [ids for _, ids in asked], [self._prompt_texts[i] for i, _ in asked]
        )
        wanted: dict[int, str] = {}  # place in `asked` → what the expert says, of texts that go on
        for k, ((index, ids), text) in enumerate(zip(asked, texts, strict=True)):
            if not vocabulary.eos_ids & set(ids) and not any(stop in text for stop in mdp.task.stop):
                wanted[k] = self._expert(mdp.prompt_set.prompts[index], text)
        new = [answer for answer in dict.fromkeys(wanted.values()) if answer not in self._first_ids]
        if new:
            read = vocabulary.tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
            self._first_ids.update((answer, int(ids[0]) if ids else None) for answer, ids in zip(new, read, strict=True))
        found = [self._end] * len(asked)
        for k, answer in wanted.items():
            first = self._first_ids[answer]
            if first is None or not mdp.allowed_mask[first]:
                raise InvalidArgumentError(
                    f"the expert of task {mdp.task.name!r} wants {answer or 'to end'!r} after "
                    f"{mdp.prompt_set.prompts[asked[k][0]].text + texts[k]!r:.120}, which the task does not allow"
                )
            found[k] = first
        return found
