"""The scorer "tfidf": TF-IDF of words and characters with a ridge, logistic or support-vector model, solved at once by scikit-learn."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.files import write_text
from textgym.reward_modeling.objectives import WITHOUT_MARGINS, BradleyTerry, CrossEntropy, MultiTask, SquaredError
from textgym.reward_modeling.scorers.scorer import Prepared, Scorer

BLOCKS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+(?:'\w+)?\b|[^\w\s]+"},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}


class TfIdf(Scorer):
    """A linear model on TF-IDF features: runs of one or two words, and of two to five characters.

    | loss | learner "ridge" | learner "svm" |
    |---|---|---|
    | squared-error, multi-task | ridge regression | support vector regression (epsilon-insensitive) |
    | cross-entropy | logistic regression | support vector machine, one against the rest |
    | bradley-terry | logistic regression on differences, a tie being half a win for each | the same with hinge loss (Joachims 2002) |

    How common ties are is not fitted. Margins and ordered classes need another scorer.

    Args:
        n_outputs: Outputs for each text.
        learner: "ridge" or "svm".
        penalty: Weight of the squared norm against the data's loss (ridge's alpha; 1 / C of the others).
        min_texts: A feature must occur in so many training texts.
    """

    name = "tfidf"
    packages = ("scikit-learn",)
    epochs, batch_size, learning_rate = 1, 1024, 0.0
    closed_form = True
    weight: Tensor
    bias: Tensor

    def __init__(self, n_outputs: int, learner: str = "ridge", penalty: float = 2.0, min_texts: int = 2) -> None:
        super().__init__()
        if learner not in ("ridge", "svm"):
            raise InvalidArgumentError(f'tfidf: learner must be "ridge" or "svm", got {learner!r}')
        if not penalty > 0:
            raise InvalidArgumentError(f"tfidf: penalty must be above 0, got {penalty}")
        self.n_outputs, self.learner, self.penalty, self.min_texts = n_outputs, learner, float(penalty), int(min_texts)
        self.register_buffer("weight", torch.zeros(0, n_outputs))
        self.register_buffer("bias", torch.zeros(n_outputs))
        self._blocks: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """Return learner, penalty and the least number of texts."""
        return {"learner": self.learner, "penalty": self.penalty, "min_texts": self.min_texts}

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Return one sparse row (1, features) per text."""
        if not texts:
            return []
        matrix = self._matrix(list(texts))
        return [matrix[i : i + 1] for i in range(len(texts))]

    def forward(self, prepared: Prepared) -> Tensor:
        """Return the outputs, (n, n_outputs)."""
        from scipy.sparse import vstack

        if not len(prepared):
            return torch.zeros(0, self.n_outputs)
        return torch.from_numpy(np.asarray(vstack(list(prepared)) @ self.weight.double().cpu().numpy())).float() + self.bias.cpu()

    def solve(self, texts: Sequence[str], objective: nn.Module, items: Sequence[Any], seed: int) -> None:
        """Choose the features on the training texts, then fit the linear model to `objective`'s targets."""
        self._blocks = {}
        for name, options in BLOCKS.items():
            self._blocks[name] = _vectorizer(options, min_df=self.min_texts)
            try:
                self._blocks[name].fit(texts)
            except ValueError as error:
                message = f"tfidf: no {name} occur in {self.min_texts} of the {len(texts)} training texts ({error})"
                raise InvalidArgumentError(message) from None
        matrix = self._matrix(texts)
        if isinstance(objective, (SquaredError, MultiTask)):
            found = self._ratings(matrix, objective.targets(items), seed)
        elif isinstance(objective, CrossEntropy):
            found = self._classes(matrix, objective.targets(items)["label"].numpy(), seed)
        elif isinstance(objective, BradleyTerry):
            found = self._pairs(matrix, objective.targets(items), seed)
        else:
            raise InvalidArgumentError(f"tfidf is solved at once, which the loss {getattr(objective, 'name', objective)!r} does not allow")
        self.weight, self.bias = (torch.from_numpy(np.asarray(array, np.float32)).contiguous() for array in found)

    def save_assets(self, folder: Path) -> None:
        """Write the features in their order, and their idf beside the weights."""
        vocabulary = {name: sorted(b.vocabulary_, key=b.vocabulary_.__getitem__) for name, b in self._blocks.items()}
        write_text(folder / "features.json", json.dumps(vocabulary, ensure_ascii=False) + "\n")

    def state(self) -> dict[str, Tensor]:
        """Return weights and idf."""
        return {**super().state(), **{f"idf_{name}": torch.from_numpy(np.array(b.idf_)) for name, b in self._blocks.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights and idf."""
        self.weight, self.bias = state["weight"], state["bias"]
        for name, block in self._blocks.items():
            block.idf_ = state[f"idf_{name}"].numpy()

    @classmethod
    def load(cls, folder: Path, n_outputs: int, settings: Mapping[str, Any], device: str) -> "TfIdf":
        """Return the scorer with the features of a folder."""
        del device
        made = cls(n_outputs, **settings)
        vocabulary = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        made._blocks = {
            name: _vectorizer(options, vocabulary={feature: i for i, feature in enumerate(vocabulary[name])})
            for name, options in BLOCKS.items()
        }
        return made

    def _matrix(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import hstack

        return hstack([block.transform(texts) for block in self._blocks.values()]).tocsr()

    def _ratings(self, matrix: Any, targets: Mapping[str, Tensor], seed: int) -> tuple[Any, Any]:
        from sklearn.linear_model import Ridge
        from sklearn.svm import LinearSVR

        wanted = targets["ratings"].numpy() if "ratings" in targets else targets["rating"].numpy()[:, None]
        weights, biases = [], []
        for column in wanted.T:
            known = ~np.isnan(column)
            if self.learner == "ridge":
                model = Ridge(alpha=self.penalty, solver="sparse_cg", tol=1e-4)
            else:
                model = LinearSVR(
                    C=1 / self.penalty, epsilon=0.1, loss="squared_epsilon_insensitive", dual=True, random_state=seed, max_iter=5000
                )
            model.fit(matrix[known], column[known])
            weights.append(np.ravel(model.coef_))
            biases.append(float(np.ravel(model.intercept_)[0]))
        return np.stack(weights, 1), biases

    def _classes(self, matrix: Any, labels: Any, seed: int) -> tuple[Any, Any]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC

        if self.learner == "ridge":
            model = LogisticRegression(C=1 / self.penalty, max_iter=500)
        else:
            model = LinearSVC(C=1 / self.penalty, random_state=seed)
        model.fit(matrix, labels)
        weight, bias = np.zeros((matrix.shape[1], self.n_outputs)), np.full(self.n_outputs, -30.0)  # a class never seen: next to impossible
        if len(model.classes_) == 2:  # one function for two classes
            weight[:, model.classes_[1]] = model.coef_[0]
            bias[model.classes_] = 0.0, model.intercept_[0]
        else:
            weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
        return weight, bias

    def _pairs(self, matrix: Any, targets: Mapping[str, Tensor], seed: int) -> tuple[Any, Any]:
        from scipy.sparse import vstack
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC

        if bool((targets["margin"] != 0).any()):
            raise InvalidArgumentError(f"tfidf knows no margins, and the pairs have some: {WITHOUT_MARGINS}, or take another scorer")
        tie = targets["tie"].numpy()
        half = matrix.shape[0] // 2
        difference = matrix[:half] - matrix[half:]
        if tie.all():
            raise InvalidArgumentError("all pairs are ties: nothing can be learnt from them")
        # every pair stands here twice with half its weight: a decided one in both directions, so that there are two classes, a tie won by each
        both = vstack([difference, -difference])
        labels = np.concatenate([np.ones(half), np.where(tie, 1.0, 0.0)])
        if self.learner == "ridge":
            model = LogisticRegression(C=1 / self.penalty, fit_intercept=False, max_iter=500)
        else:
            model = LinearSVC(C=1 / self.penalty, fit_intercept=False, random_state=seed)
        model.fit(both, labels, sample_weight=np.full(len(labels), 0.5))
        return model.coef_.T, [0.0]


def _vectorizer(options: Mapping[str, Any], **more: Any) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtraError("the scorer 'tfidf'", "reward-modeling") from None
    return TfidfVectorizer(sublinear_tf=True, lowercase=True, dtype=np.float64, **options, **more)
