"""The task "TokenChain-v0": a short chain of tokens with noisy rewards of known mean, where optimal values can be computed exactly."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

import textgym

SYMBOLS = ("a", "b", "c")
HORIZON = 3


def mean_reward(prompt: Sequence[str], continuation: Sequence[str]) -> float:
    """Return the probability of the reward 1, 0.05 to 0.95, of a continuation (0 to 3 symbols) of a prompt (2 symbols).

    It grows with every symbol that goes on in the cycle a, b, c, a, ... and falls with every one that repeats the prompt's first: now and
    then it is best to stop, or to leave the cycle for a symbol.
    """
    symbols = (*prompt, *continuation)
    onward = sum(SYMBOLS.index(after) == (SYMBOLS.index(before) + 1) % len(SYMBOLS) for before, after in pairwise(symbols[1:]))
    repeated = sum(symbol == prompt[0] for symbol in continuation)
    return min(0.95, max(0.05, 0.3 + 0.25 * onward - 0.35 * repeated))


class ChainReward:
    """1 with the probability `mean_reward` of prompt and continuation, else 0.

    Args:
        seed: Of the draws.
    """

    low, high = 0.0, 1.0

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or 0.0 per episode, drawn anew each time."""
        means = [mean_reward(e.prompt.split(), e.continuation.split()) for e in episodes]
        return [float(u < mean) for u, mean in zip(self._rng.random(len(means)), means, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return the generator's state."""
        return dict(self._rng.bit_generator.state)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._rng.bit_generator.state = dict(state)


def token_chain() -> textgym.Task:
    """Write up to three symbols for a noisy reward.

    ## Description
    The expected reward of every text is known (`mean_reward`), so that the optimal values, hard and soft, of every prefix can be computed by
    dynamic programming and learned ones compared with them. The transition of text generation appends the token and is deterministic; what
    is random here is the prompt and the reward.

    ## Action Space
    `Discrete(11)`: the symbols a, b, c and end-of-text may be chosen.

    ## Observation Space
    `input_ids` and `attention_mask`, int64 (5,), right-padded.

    ## Starting State
    One of the 9 pairs of symbols; the splits share them.

    ## Reward
    1 with a probability that depends on the whole text, else 0.

    ## Episode End
    End-of-text token, or three tokens.

    ## Information
    `prompt`, `continuation`, `finish_reason`, `reward_terms` after the last step.

    ## Arguments
    None.

    ## References
    None.

    ## Version History
    v0: initial version.
    """
    prompts = [f"{first} {second}" for first, second in product(SYMBOLS, repeat=2)]
    splits = {"train": prompts, "validation": prompts, "test": prompts}
    return textgym.Task("TokenChain-v0", splits, "copy-token", HORIZON, "chain", allowed_tokens=SYMBOLS)


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("chain", ChainReward)


@textgym.hookimpl
def register_tasks(register: Any) -> None:
    """Register the task."""
    register("TokenChain-v0", token_chain)
