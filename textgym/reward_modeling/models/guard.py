"""Guard: how much a text looks like an exploit rather than like something a person wrote, from its form and its improbability."""

import hashlib
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.files import write_text
from textgym.reward_modeling.models.improbability import Improbability

Array = NDArray[np.float64]
DESCRIPTION, WEIGHTS = "guard.json", "guard.safetensors"
PIECE = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]+")
ENDINGS = ("ing", "ed", "ly", "s")
N_FORM = 14  # figures of form
N_FREQUENT = 80  # words that keep their shape in a skeleton: mostly function words
USUAL = 0.5  # share of words of running text that are common
WIDTH = 1.0  # nats of log odds between full trust and none


class Guard:
    """A logistic model on a text's skeleton, a dozen figures of its form, and a language model's figures of how probable it is.

    None of these is a content word, so it cannot learn taste. The skeleton keeps punctuation and the commonest words of human texts, and puts the ending of every other word in its place: "a truly
    moving film" becomes "a ~ly ~ing ~". Runs of one to three pieces are counted.

    Args:
        frequent: The words that a skeleton keeps.
        features: Runs of pieces, in the order of the weights.
        idf: Of each run, (features,).
        centre, spread: Of the figures of form in the fitted texts, (figures,).
        weight: Of runs, then of figures and their products.
        bias: Added to both.
        threshold: Log odds of being an exploit up to which a score is left alone.
        ceiling: Score that a text which is surely an exploit cannot exceed.
        improbability: The language model's figures; None for a guard on form alone.
    """

    def __init__(
        self, frequent: Sequence[str], features: Sequence[str], idf: Array, centre: Array, spread: Array, weight: Array, bias: float,
        threshold: float, ceiling: float, improbability: Improbability | None = None,
    ) -> None:  # fmt: skip
        self.improbability = improbability
        self.frequent, self.features, self.bias = tuple(frequent), tuple(features), float(bias)
        self.threshold, self.ceiling = float(threshold), float(ceiling)
        self.idf, self.centre, self.spread, self.weight = (np.asarray(a, np.float64) for a in (idf, centre, spread, weight))
        self._kept = frozenset(self.frequent)
        self._vectorizer = _vectorizer(vocabulary={feature: i for i, feature in enumerate(self.features)})
        self._vectorizer.idf_ = self.idf

    @classmethod
    def fit(
        cls, human: Sequence[str], exploits: Sequence[str], spared: Sequence[str], ceiling: float, share: float = 0.98,
        penalty: float = 0.2, improbability: Improbability | None = None, unread: Sequence[str] = (),
    ) -> "Guard":  # fmt: skip
        """Return the guard that tells exploits from human texts.

        Args:
            human: Texts that people wrote.
            exploits: Texts that fooled a reward; both classes count the same, however many there are.
            spared: Other human texts, which set the threshold.
            ceiling: Score that a text which is surely an exploit cannot exceed.
            share: Of `spared` whose scores are left alone, in (0, 1).
            penalty: Weight of the squared norm.
            improbability: The language model's figures; None for a guard on form alone.
            unread: Human texts that the language model was not trained on. What it was trained on it finds too probable (the bundled one by
                0.8 nats a token), so the figures of `human` are moved to the mean and the spread of these, which are learnt from, too.

        Raises:
            InvalidArgumentError: There are no texts of one kind, or a number is out of its range.
        """
        if not (human and exploits and spared):
            raise InvalidArgumentError(
                f"a guard needs texts of each kind, got {len(human)} human, {len(exploits)} exploits, {len(spared)} spared"
            )
        if not 0 < share < 1:
            raise InvalidArgumentError(f"share of human texts to be spared must be between 0 and 1, got {share}")
        from scipy.sparse import csr_matrix, hstack
        from sklearn.linear_model import LogisticRegression

        counts = Counter(piece for text in human for piece in PIECE.findall(text.lower()) if piece[0].isalnum())
        frequent = [word for word, _ in counts.most_common(N_FREQUENT)]
        kept = frozenset(frequent)
        n_human = len(human) + len(unread)
        texts = [*human, *unread, *exploits]
        vectorizer = _vectorizer(min_df=2)
        runs = vectorizer.fit_transform([skeleton(text, kept) for text in texts])
        figures = _figures(texts, kept, improbability)
        if improbability is not None and len(unread):
            read, like = figures[: len(human), N_FORM:], figures[len(human) : n_human, N_FORM:]
            figures[: len(human), N_FORM:] = (read - read.mean(0)) / np.maximum(read.std(0), 1e-3) * like.std(0) + like.mean(0)
        centre, spread = figures.mean(0), np.maximum(figures.std(0), 1e-3)
        matrix = hstack([runs, csr_matrix(_with_products((figures - centre) / spread))]).tocsr()
        model = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=80)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's ConvergenceWarning: stopping early is a penalty, too
            model.fit(matrix, np.r_[np.zeros(n_human), np.ones(len(exploits))])
        features = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
        made = cls(
            frequent, features, vectorizer.idf_, centre, spread, model.coef_[0], float(model.intercept_[0]), 0.0, ceiling, improbability
        )
        made.threshold = float(np.quantile(made.log_odds(spared), share))
        return made

    def log_odds(self, texts: Sequence[str]) -> Array:
        """Return the log odds of being an exploit, if half of all texts were, (n,)."""
        if not texts:
            return np.zeros(0)
        runs = self._vectorizer.transform([skeleton(text, self._kept) for text in texts])
        figures = _with_products((_figures(texts, self._kept, self.improbability) - self.centre) / self.spread)
        n = len(self.features)
        return np.asarray(runs @ self.weight[:n] + figures @ self.weight[n:] + self.bias, np.float64)

    def guarded(self, texts: Sequence[str], scores: Array) -> Array:
        """Return the scores, (n,), drawn down to the ceiling as far as the texts are not trusted; lower ones stay as they are."""
        guarded: Array = np.array(scores, np.float64)
        above = np.flatnonzero(guarded > self.ceiling)  # the others need not be read
        guarded[above] -= (guarded[above] - self.ceiling) * (1 - self.trust([texts[i] for i in above.tolist()]))
        return guarded

    def trust(self, texts: Sequence[str]) -> Array:
        """Return the share of its score above the ceiling that a text keeps, (n,): 1 up to the threshold, 0 from `WIDTH` nats above it on."""
        return trust_of(self.log_odds(texts), self.threshold)

    @property
    def version(self) -> str:
        """The start of a hash over all that it judges by."""
        digest = hashlib.sha256(repr((self.frequent, self.features, self.bias, self.threshold, self.ceiling, self.sources())).encode())
        for array in (self.idf, self.centre, self.spread, self.weight):
            digest.update(array.tobytes())
        return digest.hexdigest()[:12]

    def save(self, folder: Path) -> None:
        """Write it into a reward's folder: arrays as safetensors, words as JSON."""
        from safetensors.numpy import save_file

        arrays = {"idf": self.idf, "centre": self.centre, "spread": self.spread, "weight": self.weight, "bias": np.array([self.bias])}
        if self.improbability is not None:
            arrays["frequency"] = self.improbability.frequency
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / WEIGHTS)
        words: dict[str, Any] = {"threshold": self.threshold, "ceiling": self.ceiling, "frequent": self.frequent, "features": self.features}
        if self.improbability is not None:
            words["improbability"] = self.improbability.settings()
        write_text(folder / DESCRIPTION, json.dumps(words, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Guard":
        """Return the guard of a reward's folder; its language model, if it has one, runs on `device`."""
        from safetensors.numpy import load_file

        words = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        arrays = load_file(folder / WEIGHTS)
        bias = float(arrays.pop("bias")[0])
        made: Any = cls
        reading = words.pop("improbability", None)
        improbability = None if reading is None else Improbability(**reading, frequency=arrays.pop("frequency"), device=device)
        guard: Guard = made(**words, **arrays, bias=bias, improbability=improbability)
        return guard

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of the language model behind it, by name."""
        return {} if self.improbability is None else self.improbability.sources()


def trust_of(log_odds: Array, threshold: float) -> Array:
    """Return the share of its score above the ceiling that a text keeps, (n,), in 0..1."""
    return np.clip(1 - (log_odds - threshold) / WIDTH, 0.0, 1.0)


def skeleton(text: str, kept: frozenset[str]) -> str:
    """Return a text's pieces, every word that is not kept replaced by "~" with its ending."""
    found = ["^"]
    for piece in PIECE.findall(text.lower()):
        if piece in kept or not piece[0].isalnum():
            found.append(piece[:4])
        elif piece[0].isdigit():
            found.append("0")
        else:
            found.append("~" + next((ending for ending in ENDINGS if piece.endswith(ending)), ""))
    return " ".join([*found, "$"])


def form(text: str, kept: frozenset[str]) -> Array:
    """Return figures of a text's form, (14,): lengths in logarithms, the rest shares."""
    pieces = PIECE.findall(text.lower())
    words = [piece for piece in pieces if piece[0].isalnum()]
    n, n_characters = max(1, len(words)), max(1, len(text))
    counts = Counter(words)
    common = sum(word in kept for word in words)
    bare = longest = 0
    for word in words:
        bare = 0 if word in kept else bare + 1
        longest = max(longest, bare)
    pairs = list(pairwise(words))
    run = max((len(match.group()) for match in re.finditer(r"(\S)\1*", text)), default=0)
    return np.array(
        [
            math.log1p(len(words)),
            math.log1p(longest),
            math.log1p(run),
            len(counts) / n,
            max(counts.values(), default=0) / n,
            sum(a == b for a, b in pairs) / n,
            len(set(pairs)) / max(1, len(pairs)),
            common / n,
            (common - USUAL * len(words)) / math.sqrt(n),  # few common words say more in a long text than in a short one
            (len(pieces) - len(words)) / max(1, len(pieces)),
            sum(not c.isascii() for c in text) / n_characters,
            float(bool(pieces) and pieces[-1][-1] in ".!?"),
            sum(a not in kept and b not in kept for a, b in pairs) / max(1, len(pairs)),
            pieces.count(",") / n,
        ]
    )


def _figures(texts: Sequence[str], kept: frozenset[str], improbability: Improbability | None) -> Array:
    """Return the figures of form and, behind them, those of the language model, (n, figures)."""
    of_form = np.stack([form(text, kept) for text in texts])
    return of_form if improbability is None else np.concatenate([of_form, improbability.of(texts)], axis=1)


def _with_products(figures: Array) -> Array:
    """Return standardised figures and their products, (n, figures · (figures + 3) / 2): what is odd is often odd only together."""
    figures = np.clip(figures, -4, 4)
    rows, columns = np.triu_indices(figures.shape[1])
    return np.concatenate([figures, figures[:, rows] * figures[:, columns] / 2], axis=1)


def _vectorizer(**options: Any) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtraError("a guard", "reward-modeling") from None
    return TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 3), sublinear_tf=True, lowercase=False, dtype=np.float64, **options)
