"""Segments: episodes as prompt and continuation in a model's own tokens, for rewards that read tokens."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.tokenization import Vocabulary

Segment = tuple[NDArray[np.int64], NDArray[np.int64]]


def segments_of(episodes: Sequence[Episode], vocabulary: Vocabulary, own_ids: bool, end: bool = False) -> list[Segment]:
    """Return prompt ids and continuation ids of each episode, cut at the model's context; neither is empty.

    Args:
        episodes: To be read.
        vocabulary: Of the model that reads.
        own_ids: Take the episode's own ids where it has the prompt's and the continuation's: they are this vocabulary's.
        end: Put end-of-text behind a text without ids that was finished.
    """
    prompts = vocabulary.encode([e.prompt for e in episodes])
    wholes = vocabulary.encode([e.text for e in episodes])
    limit, eos = vocabulary.context_length, min(vocabulary.eos_ids)
    segments = []
    for episode, prompt, whole in zip(episodes, prompts, wholes, strict=True):
        if own_ids and episode.prompt_ids and episode.continuation_ids:
            segments.append((np.array(episode.prompt_ids, np.int64), np.array(episode.continuation_ids, np.int64)))
            continue
        start = min(len(prompt), len(whole), limit - 1)
        chosen = (whole[start:] + ([eos] if end and episode.finish_reason == "stop" else []))[: limit - start] or [eos]
        segments.append((np.array(whole[:start], np.int64), np.array(chosen, np.int64)))
    return segments


def require_same_tokens(own: Vocabulary, given: Vocabulary, asker: str, remedy: str) -> None:
    """Raise unless two vocabularies are one: a reward that is shown the policy's tokens can read no others."""
    if own is not given and (own.size != given.size or own.tokenizer.get_vocab() != given.tokenizer.get_vocab()):
        raise InvalidArgumentError(
            f"{asker} reads the policy's tokens, but those of {own.model!r} ({own.size}) are not those of {given.model!r} ({given.size}): "
            f"{remedy}"
        )
