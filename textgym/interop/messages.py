"""Messages of a chat as the text of an episode: the one rule by which every adapter turns roles and contents into prompt and continuation."""

from collections.abc import Mapping, Sequence
from typing import Any

from textgym.errors import InvalidArgumentError

SEPARATOR = "\n\n"


def prompt_text(prompt: Any) -> str:
    """Return a prompt as text: a text as it is; of messages the contents, a blank line after each."""
    if isinstance(prompt, str):
        return prompt
    return "".join(content + SEPARATOR for content in _contents(prompt, "prompt"))


def continuation_text(completion: Any) -> str:
    """Return a completion as text: a text as it is; of messages the contents, a blank line between them, none after the last."""
    if isinstance(completion, str):
        return completion
    return SEPARATOR.join(_contents(completion, "completion"))


def _contents(messages: Any, what: str) -> list[str]:
    """Return the texts of the messages that have one; calls of tools and pictures have none."""
    if not isinstance(messages, Sequence):
        raise InvalidArgumentError(f"a {what} is a text or a list of messages, got {messages!r:.120}")
    texts = []
    for message in messages:
        fields = message if isinstance(message, Mapping) else getattr(message, "__dict__", {})
        if "role" not in fields:
            raise InvalidArgumentError(f"a message of a {what} needs a role and a content, got {message!r:.120}")
        if text := _text(fields.get("content")):
            texts.append(text)
    return texts


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part if isinstance(part, Mapping) else vars(part) for part in content]
    return "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")
