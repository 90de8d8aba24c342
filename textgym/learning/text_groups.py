"""Text groups: the texts of one prompt, one after the other - where groups lie, in which rewards differ, which text is the best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.policies.generation import GeneratedText

Floats = NDArray[np.float64]


def total_rewards(texts: Sequence[GeneratedText]) -> Floats:
    """Return the sum of each text's own rewards, (n,); nan for one that the reward gave up."""
    return np.array([t.rewards.sum() for t in texts], np.float64)


def groups_of(n_texts: int, group_size: int) -> list[slice]:
    """Return where the groups of `n_texts` texts lie."""
    return [slice(start, start + group_size) for start in range(0, n_texts, group_size)]


def differing_groups(rewards: Floats, group_size: int) -> list[slice]:
    """Return the groups whose known rewards (n,) are not all the same: of a group without a difference nothing is learnt from the reward."""
    found = []
    for group in groups_of(len(rewards), group_size):
        known = rewards[group][np.isfinite(rewards[group])]
        if known.size and known.max() > known.min():
            found.append(group)
    return found


def place_of_best(scores: Floats) -> int:
    """Return the place of the greatest known score, the first of several; 0 if none is known."""
    return int(np.nanargmax(scores)) if np.isfinite(scores).any() else 0
