"""The scorer "lm-linear": a linear head on a causal language model's hidden states."""

from typing import Any

from torch import nn

from textgym.reward_modeling.scorers.feature_scorer import FeatureScorer
from textgym.reward_modeling.scorers.features import HiddenStates


class LMLinear(FeatureScorer):
    """A linear head on the hidden states of a frozen causal language model.

    Args:
        n_outputs: Outputs for each text.
        model: The language model: a registered name, a directory, a `.gguf` file or a hub id.
        dropout: Share of the features left out in training.
        device: Where both run.
    """

    name = "lm-linear"
    packages = ("torch", "transformers")

    def __init__(self, n_outputs: int, model: str = "reviews", dropout: float = 0.1, device: str = "cpu") -> None:
        features = HiddenStates(model, device)
        self.model_name, self.dropout = model, dropout
        super().__init__(n_outputs, features, nn.Sequential(nn.Dropout(dropout), nn.Linear(features.size, n_outputs)), device)

    def settings(self) -> dict[str, Any]:
        """Return model and dropout."""
        return {"model": self.model_name, "dropout": self.dropout}
