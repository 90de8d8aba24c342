"""FeatureScorer: a trained head on frozen features, computed once per text."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgym.reward_modeling.scorers.features import Features, HiddenStates
from textgym.reward_modeling.scorers.scorer import Prepared, Scorer, TokenView, stacked


class FeatureScorer(Scorer):
    """A trained head on frozen features, which are standardised on the training texts.

    Args:
        n_outputs: Outputs for each text.
        features: Whose vectors the head reads.
        head: From (n, size) to (n, n_outputs).
        device: Where the head runs.
    """

    epochs, batch_size, learning_rate = 40, 64, 1e-3
    mean: Tensor
    deviation: Tensor

    def __init__(self, n_outputs: int, features: Features, head: nn.Module, device: str) -> None:
        super().__init__()
        self.n_outputs, self.device = n_outputs, device
        self._features = features
        self.head = head
        self.register_buffer("mean", torch.zeros(features.size))
        self.register_buffer("deviation", torch.ones(features.size))
        self.to(device)

    def begin(self, texts: Sequence[str], worths: NDArray[np.float64] | None = None) -> Prepared:
        """Take mean and deviation of the training texts' features."""
        del worths
        prepared = self.prepare(texts)
        vectors = stacked(prepared, self.device)
        self.mean.copy_(vectors.mean(0))
        self.deviation.copy_(vectors.std(0).clamp_min(1e-6) if len(vectors) > 1 else torch.ones_like(self.mean))
        return prepared

    def preparation(self) -> Hashable:
        """Return the features' kind and settings."""
        return self._features.identity()

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Return the features, (n, size)."""
        return list(self._features.of(texts))

    def forward(self, prepared: Prepared) -> Tensor:
        """Return the head's outputs, (n, n_outputs)."""
        return self._outputs(stacked(prepared, self.device))

    def token_view(self, text: str) -> TokenView:
        """Return the text token by token, where the features are a language model's hidden states."""
        if not isinstance(self._features, HiddenStates):
            return super().token_view(text)
        view = self._features.token_view(text)
        return replace(view, outputs=lambda embeddings: self._outputs(view.outputs(embeddings)))

    def _outputs(self, vectors: Tensor) -> Tensor:
        return self.head((vectors - self.mean) / self.deviation)  # type: ignore[no-any-return]

    def sources(self) -> dict[str, str]:
        """Return the hash of the model behind the features."""
        return self._features.sources()
