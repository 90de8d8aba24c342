"""The task "CopyToken-v0" with its model "copy-token": say the prompt's last token, the identity test of every algorithm."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import textgym

SYMBOLS = tuple("abcdefgh")


class Copied:
    """1 if the continuation is exactly the prompt's last symbol, else 0."""

    low, high = 0.0, 1.0

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or 0.0 per episode."""
        return [float([e.continuation.strip()] == e.prompt.split()[-1:]) for e in episodes]


def last_symbol(prompt: textgym.Prompt, continuation: str) -> str:
    """Say the prompt's last symbol, and nothing more."""
    return "" if continuation else f" {prompt.text.split()[-1]}"


def copy_token() -> textgym.Task:
    """Say the prompt's last token.

    ## Description
    The prompt is two symbols; the right continuation is the second one. A tiny network learns it in seconds, so an algorithm that does not
    is broken.

    ## Action Space
    `Discrete(11)`: eight symbols may be chosen (and the end-of-text token).

    ## Observation Space
    `input_ids` and `attention_mask`, int64 (3,), right-padded.

    ## Starting State
    One of the 64 pairs of symbols; the splits share them.

    ## Reward
    1 for the right symbol, 0 for any other.

    ## Episode End
    After one token.

    ## Information
    `prompt`, `continuation`, `finish_reason`, `reward_terms` after the last step.

    ## Arguments
    None.

    ## References
    The identity environments of stable-baselines3's own tests.

    ## Version History
    v0: initial version.
    """
    prompts = [textgym.Prompt(f"{first} {second}", (f" {second}",)) for first, second in product(SYMBOLS, repeat=2)]
    splits = {"train": prompts, "validation": prompts, "test": prompts}
    return textgym.Task(
        "CopyToken-v0", splits, "copy-token", 1, "copied", perfect_score=1.0, offline="copy-token-offline", expert=last_symbol
    )


def copy_token_model() -> str:
    """A folder with the configuration and tokenizer of a tiny GPT-2; without weights, so every seed starts afresh."""
    return str(Path(__file__).parent / "models" / "copy_token")


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("copied", Copied)


@textgym.hookimpl
def register_tasks(register: Any) -> None:
    """Register the task."""
    register("CopyToken-v0", copy_token)


@textgym.hookimpl
def register_models(register: Any) -> None:
    """Register the model."""
    register("copy-token", copy_token_model)
