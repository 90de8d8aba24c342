"""The scorer "embedding": a linear head on frozen sentence embeddings."""

from typing import Any

from torch import nn

from textgym.reward_modeling.scorers.feature_scorer import FeatureScorer
from textgym.reward_modeling.scorers.features import SentenceEmbeddings


class EmbeddingLinear(FeatureScorer):
    """A linear head on the sentence embeddings of a frozen sentence-transformers model.

    Args:
        n_outputs: Outputs for each text.
        model: A registered name, a directory or a hub id.
        dropout: Share of the features left out in training.
        device: Where both run.
    """

    name = "embedding"
    packages = ("torch", "transformers", "sentence-transformers")

    def __init__(self, n_outputs: int, model: str = "minilm", dropout: float = 0.1, device: str = "cpu") -> None:
        features = SentenceEmbeddings(model, device)
        self.model_name, self.dropout = model, dropout
        super().__init__(n_outputs, features, nn.Sequential(nn.Dropout(dropout), nn.Linear(features.size, n_outputs)), device)

    def settings(self) -> dict[str, Any]:
        """Return model and dropout."""
        return {"model": self.model_name, "dropout": self.dropout}
