"""The scorer "mlp": a perceptron with two hidden layers, 128 and 64 wide, on frozen features of any kind."""

from typing import Any

from torch import nn

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.scorers.feature_scorer import FeatureScorer
from textgym.reward_modeling.scorers.features import Features, HashedNgrams, HiddenStates, SentenceEmbeddings


class MLP(FeatureScorer):
    """A perceptron size-128-64-n_outputs on frozen features.

    Args:
        n_outputs: Outputs for each text.
        features: "embedding" (sentence embeddings), "lm" (a language model's hidden states) or "hashed" (character n-grams).
        model: Of the features; None for theirs ("minilm", "reviews").
        size: Of hashed features.
        dropout: After each hidden layer, in training.
        device: Where it runs.
    """

    name = "mlp"
    packages = ("torch", "transformers", "scikit-learn")
    epochs = 20

    def __init__(
        self,
        n_outputs: int,
        features: str = "embedding",
        model: str | None = None,
        size: int = 2048,
        dropout: float = 0.3,
        device: str = "cpu",
    ) -> None:
        found: Features
        if features == "embedding":
            found = SentenceEmbeddings(model or "minilm", device)
        elif features == "lm":
            found = HiddenStates(model or "reviews", device)
        elif features == "hashed":
            found = HashedNgrams(size)
        else:
            raise InvalidArgumentError(f'mlp: features must be "embedding", "lm" or "hashed", got {features!r}')
        self.features_name, self.model_name, self.size, self.dropout = features, model, size, dropout
        head = nn.Sequential(
            nn.Linear(found.size, 128),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(128, 64),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(64, n_outputs),
        )
        super().__init__(n_outputs, found, head, device)

    def settings(self) -> dict[str, Any]:
        """Return the features' name, model and size, and the dropout."""
        return {"features": self.features_name, "model": self.model_name, "size": self.size, "dropout": self.dropout}
