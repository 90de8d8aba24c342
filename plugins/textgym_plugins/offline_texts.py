"""The judgements "...-offline": fixed sets of texts with rewards for the prompts of four tasks, which offline agents learn from."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import textgym
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.reading import read_judgements

FOLDER = Path(__file__).parent / "data" / "offline_texts"
SETS = {
    "copy-token-offline": "CopyToken-v0",
    "token-chain-offline": "TokenChain-v0",
    "review-classification-offline": "ReviewClassification-v0",
    "review-continuation-offline": "ReviewContinuation-v0",
}


def offline_file(name: str) -> Path:
    """Return the file of a set."""
    return FOLDER / f"{name.removesuffix('-offline').replace('-', '_')}.jsonl.gz"


@cache
def offline_texts(name: str) -> JudgementSet[RatedText]:
    """Return a set's texts, each with its prompt, its reward as rating and its writer as source."""
    return read_judgements(offline_file(name))


@textgym.hookimpl
def register_judgements(register: Any) -> None:
    """Register the sets."""
    for name, task in SETS.items():
        factory = partial(offline_texts, name)
        factory.__doc__ = f"Texts with rewards for prompts of {task}, written by several policies: what offline agents learn from."
        register(name, factory)
