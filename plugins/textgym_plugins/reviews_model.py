"""The model "reviews": a small language model of English review sentences, bundled with its tokenizer."""

from pathlib import Path
from typing import Any

import textgym


def reviews() -> str:
    """A 3-layer GPT-2 of English reviews and tweets, trained by the project's own script (see its model card)."""
    return str(Path(__file__).parent / "models" / "reviews")


@textgym.hookimpl
def register_models(register: Any) -> None:
    """Register the model."""
    register("reviews", reviews)
