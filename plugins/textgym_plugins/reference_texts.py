"""Reference texts: what of an episode's references a continuation is compared with."""

import textgym
from textgym.episode import reference_continuation


def reference_continuations(episode: textgym.Episode, reward: str) -> list[str]:
    """Return the references, each without the prompt where it begins with it.

    Raises:
        InvalidArgumentError: There are none; the line names the `reward` that asks.
    """
    if not episode.references:
        raise textgym.InvalidArgumentError(f"{reward} compares with reference texts, but the episode has none: use a task with references")
    return [reference_continuation(episode.prompt, reference) for reference in episode.references]
