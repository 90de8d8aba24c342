"""Reference texts: what of an episode's references a continuation is compared with."""

import textgym


def reference_continuations(episode: textgym.Episode, reward: str) -> list[str]:
    """Return the references; one that begins with the prompt, without it, since a continuation does not repeat the prompt.

    Raises:
        InvalidArgumentError: There are none; the line names the `reward` that asks.
    """
    if not episode.references:
        raise textgym.InvalidArgumentError(f"{reward} compares with reference texts, but the episode has none: use a task with references")
    return [reference.removeprefix(episode.prompt) for reference in episode.references]
