"""Episode: a prompt and its continuation, the thing that reward models score."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Episode:
    """One finished text.

    Attributes:
        prompt: The given text.
        continuation: The text the policy chose, without special tokens; begins with a space where the tokenizer says so.
        prompt_ids: Token ids of the prompt, (prompt length,); empty where only the text is known.
        continuation_ids: Token ids of the continuation, EOS included if it was chosen, (continuation length,).
        references: Reference texts of the task, possibly none.
        finish_reason: "stop" (EOS or a stop string) or "length" (the token budget was used up).
        metadata: Whatever the task knows about the prompt (its source, id, ...).
    """

    prompt: str
    continuation: str = ""
    prompt_ids: tuple[int, ...] = ()
    continuation_ids: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    finish_reason: FinishReason = "stop"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Prompt and continuation as one text."""
        return self.prompt + self.continuation


def reference_continuation(prompt: str, reference: str) -> str:
    """Return a reference without the prompt if it begins with it, since a continuation does not repeat the prompt."""
    return reference.removeprefix(prompt)
