"""The task "TokenChain-v0" with its model "token-chain": a short chain with noisy rewards of known mean and exact optimal values."""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import textgym

SYMBOLS = ("a", "b", "c")
HORIZON = 3
DRAWS = 20  # copies of each prompt; the means are multiples of a twentieth


def mean_reward(prompt: Sequence[str], continuation: Sequence[str]) -> float:
    """Return the probability of the reward 1, 0.05 to 0.95, of a continuation (0 to 3 symbols) of a prompt (2 symbols).

    It grows with every symbol that goes on in the cycle a, b, c, a, ... and falls with every one that repeats the prompt's first: now and
    then it is best to stop, or to leave the cycle for a symbol.
    """
    symbols = (*prompt, *continuation)
    onward = sum(SYMBOLS.index(after) == (SYMBOLS.index(before) + 1) % len(SYMBOLS) for before, after in pairwise(symbols[1:]))
    repeated = sum(symbol == prompt[0] for symbol in continuation)
    return min(0.95, max(0.05, 0.3 + 0.25 * onward - 0.35 * repeated))


def best_ending(prompt: textgym.Prompt, continuation: str) -> str:
    """Return the symbols that, after those so far, lead to the greatest mean reward: the optimal policy. Of equal ones the shortest."""
    written = continuation.split()
    endings = [ending for n in range(HORIZON - len(written) + 1) for ending in product(SYMBOLS, repeat=n)]
    best = max(endings, key=lambda ending: mean_reward(prompt.text.split(), [*written, *ending]), default=())
    return "".join(f" {symbol}" for symbol in best)


class ChainReward:
    """1 with the probability `mean_reward` of prompt and continuation, else 0.

    Chance is part of the prompt: each comes `DRAWS` times, with a number of its own that no policy sees, and the reward is 1 where that number is
    below the mean. So one seed gives one result, and over a prompt's copies the share of ones is exactly the mean. A text without such a
    number is given the mean itself.
    """

    low, high = 0.0, 1.0

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or 0.0 per episode of the task, the mean for a bare text."""
        found = []
        for e in episodes:
            mean = mean_reward(e.prompt.split(), e.continuation.split())
            draw = e.metadata.get("draw")
            found.append(mean if draw is None else float(draw < mean))
        return found


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
    One of the 9 pairs of symbols, 20 times each with a hidden draw of chance; the splits share them.

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
    draws = [(k + 0.5) / DRAWS for k in range(DRAWS)]
    prompts = [textgym.Prompt(f"{first} {second}", metadata={"draw": u}) for first, second in product(SYMBOLS, repeat=2) for u in draws]
    splits = {"train": prompts, "validation": prompts, "test": prompts}
    return textgym.Task(
        "TokenChain-v0", splits, "token-chain", HORIZON, "chain", allowed_tokens=SYMBOLS, offline="token-chain-offline", expert=best_ending
    )


def token_chain_model() -> str:
    """A folder with the configuration and tokenizer of a tiny GPT-2; without weights, so every seed starts afresh.

    Unlike "copy-token" it starts with weights of the size that fits its width of 32 (0.15; GPT-2's own 0.02 is for 768), for with 0.02 its
    attention is all but uniform and several hundred steps pass before any function of the whole prefix is learnt, even from exact values;
    and its output layer is of its own, for a tied one would make every symbol say itself again.
    """
    return str(Path(__file__).parent / "models" / "token_chain")


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("chain", ChainReward)


@textgym.hookimpl
def register_tasks(register: Any) -> None:
    """Register the task."""
    register("TokenChain-v0", token_chain)


@textgym.hookimpl
def register_models(register: Any) -> None:
    """Register the model."""
    register("token-chain", token_chain_model)
