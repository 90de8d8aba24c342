"""CompactModel: a small reward network in numpy - n-grams counted by a linear part, word vectors read by a convolution - one text at a time."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.reward_modeling.scorers.text_features import character_ngrams, ngrams, plain, tokens

BLOCKS = ("words", "ngrams", "characters")  # every block is a bag of features with an L2 norm of its own
WIDTHS = (1, 2, 3)  # words that a filter of the convolution sees
UNKNOWN = 0  # row of the vector of words without one of their own
DAMPING = 0.1  # of a text's mean squared norm, added to each: a lone word, and a word nobody knows, count for less
LONGEST_TEXT = 256  # words; the convolution reads no further
FILE = "vocabulary.json"

Array = NDArray[np.float32]


class TextInput(NamedTuple):
    """What the network reads of a text.

    Attributes:
        words: Rows of the word vectors, (L,) int64, L >= 1.
        negated: 1 for a word that a negation reaches, (L,) float32.
        features: Known features of all blocks, each once, (m,) int64.
        values: Their values: idf over the block's norm, (m,) float32.
    """

    words: NDArray[np.int64]
    negated: Array
    features: NDArray[np.int64]
    values: Array


class FeatureIndex:
    """Words and features by number, and how common the features are.

    Args:
        words: Words with a vector, in the order of their rows from 1 on.
        features: Block to its features in order.
        idf: Block to the features' inverse document frequencies.
        damping: Block to what is added to a text's squared norm.
    """

    def __init__(
        self, words: Sequence[str], features: Mapping[str, Sequence[str]], idf: Mapping[str, Array], damping: Mapping[str, float]
    ) -> None:
        self.words, self.features, self.idf, self.damping = list(words), {b: list(features[b]) for b in BLOCKS}, dict(idf), dict(damping)
        self.n_features = sum(map(len, self.features.values()))
        self._row = {word: row for row, word in enumerate(self.words, UNKNOWN + 1)}
        self._number: dict[str, dict[str, int]] = {}
        start = 0
        for block in BLOCKS:
            self._number[block] = {feature: i for i, feature in enumerate(self.features[block], start)}
            start += len(self.features[block])
        self._idf = np.concatenate([np.asarray(self.idf[block], np.float64) for block in BLOCKS])
        self._characters = lru_cache(32768)(lambda token: tuple(self._known("characters", character_ngrams(token))))

    @classmethod
    def of(cls, texts: Iterable[str], words: Iterable[str], min_texts: int) -> "FeatureIndex":
        """Return the index of training texts: features, and words beside those given, that occur in `min_texts` of them."""
        n, counts = 0, {block: dict[str, int]() for block in (*BLOCKS, "plain")}
        for text in texts:
            found = tokens(text)
            bags = {
                "words": found,
                "ngrams": ngrams(found),
                "characters": (gram for token in found for gram in character_ngrams(token)),
                "plain": map(plain, found),
            }
            for block, bag in bags.items():
                count = counts[block]
                for feature in set(bag):
                    count[feature] = count.get(feature, 0) + 1
            n += 1
        features = {block: sorted(f for f, c in counts[block].items() if c >= min_texts) for block in BLOCKS}
        idf = {b: np.array([math.log((1 + n) / (1 + counts[b][f])) + 1 for f in features[b]], np.float32) for b in BLOCKS}
        share = {b: np.array([counts[b][f] / n for f in features[b]]) for b in BLOCKS}
        damping = {b: DAMPING * float((share[b] * idf[b].astype(np.float64) ** 2).sum()) for b in BLOCKS}
        known = {*words, *(word for word, count in counts["plain"].items() if count >= min_texts)}
        return cls(sorted(known), features, idf, damping)

    @classmethod
    def load(cls, folder: Path, idf: Mapping[str, Array]) -> "FeatureIndex":
        """Return the index of a folder; the frequencies are kept with the weights."""
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(found["words"], found["features"], idf, found["damping"])

    def described(self) -> str:
        """Return words, features and damping as JSON."""
        return json.dumps({"words": self.words, "features": self.features, "damping": self.damping}, ensure_ascii=False)

    def read(self, text: str) -> TextInput:
        """Return what the network reads of a text."""
        found = tokens(text)
        chosen, values = [], []
        bags: tuple[Iterable[int], ...] = (
            self._known("words", found),
            self._known("ngrams", ngrams(found)),
            dict.fromkeys(i for token in found for i in self._characters(token)),
        )
        for block, bag in zip(BLOCKS, bags, strict=True):
            numbers = np.fromiter(bag, np.int64)
            idf = self._idf[numbers]
            chosen.append(numbers)
            values.append(idf / math.sqrt(float(idf @ idf) + self.damping[block] or 1.0))
        seen = found[:LONGEST_TEXT]
        rows = [self._row.get(plain(token), UNKNOWN) for token in seen] or [UNKNOWN]
        negated = [float(token[0] == "~" and len(token) > 1) for token in seen] or [0.0]
        return TextInput(
            np.array(rows, np.int64), np.array(negated, np.float32), np.concatenate(chosen), np.concatenate(values).astype(np.float32)
        )

    def _known(self, block: str, features: Iterable[str]) -> dict[int, None]:
        number = self._number[block]
        return dict.fromkeys(i for feature in features if (i := number.get(feature)) is not None)  # in a fixed order, unlike a set


class CompactModel:
    """The network's answer to one text, from arrays alone: no torch, and a score that cannot depend on other texts.

    raw = W_features values + head(max and mean over all windows of relu(convolution(vectors))); outputs = limit tanh(raw / limit).

    Args:
        weights: As `textgym.reward_modeling.scorers.compact.Compact` names them, float32.
    """

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.vectors, self.negation = weights["vectors.weight"], weights["negation"]
        self.filters = [weights[f"convolutions.{i}.weight"] for i in range(len(WIDTHS))]  # (filters, size, width)
        self.filter_biases = [weights[f"convolutions.{i}.bias"] for i in range(len(WIDTHS))]
        # one product for all widths and places: (size, sum of widths * filters)
        self._columns = np.ascontiguousarray(np.concatenate([f[:, :, k].T for f in self.filters for k in range(f.shape[2])], axis=1))
        self.hidden, self.hidden_bias = weights["head.0.weight"].T.copy(), weights["head.0.bias"]
        self.output, self.output_bias = weights["head.3.weight"].T.copy(), weights["head.3.bias"]
        self.linear, self.limit = weights["linear.weight"], weights["limit"]

    def outputs(self, text: TextInput) -> Array:
        """Return the outputs for a text, (n_outputs,)."""
        read = (self.vectors[text.words] + text.negated[:, None] * self.negation) @ self._columns  # (L, widths * filters)
        n, size = len(text.words), self.filters[0].shape[0]
        pooled, start = [], 0
        for width, bias in zip(WIDTHS, self.filter_biases, strict=True):
            windows = np.repeat(bias[None], n + width - 1, axis=0)  # every window that touches the text
            for k in range(width):
                windows[width - 1 - k : width - 1 - k + n] += read[:, start : start + size]
                start += size
            np.maximum(windows, 0, out=windows)
            pooled += [windows.max(0), windows.mean(0)]
        hidden = np.maximum(np.concatenate(pooled) @ self.hidden + self.hidden_bias, 0)
        raw = hidden @ self.output + self.output_bias + text.values @ self.linear[text.features]
        answer: Array = self.limit * np.tanh(raw / self.limit)
        return answer
