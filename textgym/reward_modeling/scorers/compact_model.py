"""CompactModel: a small reward network in numpy - n-grams counted by a linear part, word vectors read by a convolution - many texts at a time."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.reward_modeling.scorers.text_features import NEGATED, character_ngrams, ngrams, plain, tokens

BLOCKS = ("words", "ngrams", "characters")  # every block is a bag of features with an L2 norm of its own
WIDTHS = (1, 2, 3)  # words that a filter of the convolution sees
UNKNOWN = 0  # row of the vector of words without one of their own
NO_WORD = (UNKNOWN, False, ())  # what is read of a text without a word
DAMPING = 0.1  # of a text's mean squared norm, added to each: a lone word, and a word nobody knows, count for less
LONGEST_TEXT = 256  # words; the convolution reads no further
FILE = "vocabulary.json"

Array = NDArray[np.float32]


class TextInput(NamedTuple):
    """What the network reads of a text.

    Attributes:
        words: Rows of the word vectors, (L,) int64, L >= 1; a word said several times running is one, so that repeating it changes nothing.
        negated: 1 for a word that a negation reaches, (L,) float32.
        features: Known features of all blocks, each once, (m,) int64.
        values: Their values: idf over the norm of the block's idf, (m,) float32.
        wide: Of a training text: what the wide part says of it that was fitted without it, (n_outputs,) float32; else None.
    """

    words: NDArray[np.int64]
    negated: Array
    features: NDArray[np.int64]
    values: Array
    wide: Array | None = None


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
        self._word = lru_cache(32768)(self._read_word)

    @classmethod
    def of(cls, texts: Sequence[str], words: Iterable[str], min_texts: int) -> "FeatureIndex":
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

    def read(self, texts: Sequence[str]) -> list[TextInput]:
        """Return what the network reads of each text; what is read of one does not depend on the others."""
        rows: list[int] = []
        negated: list[bool] = []
        numbers: list[int] = []
        n_words, n_features = [], []  # of each text; of each block of each text
        for text in texts:
            found = tokens(text)
            entries = [self._word(token) for token in found]
            seen = [entry for entry, token, last in zip(entries, found, ["", *found], strict=False) if token != last][:LONGEST_TEXT] or [
                NO_WORD
            ]
            rows += [row for row, _, _ in seen]
            negated += [mark for _, mark, _ in seen]
            n_words.append(len(seen))
            for bag in (
                self._known("words", found),
                self._known("ngrams", ngrams(found)),
                dict.fromkeys(itertools.chain.from_iterable(characters for _, _, characters in entries)),  # each once, in a fixed order
            ):
                numbers += bag
                n_features.append(len(bag))
        chosen, counts = np.array(numbers, np.int64), np.array(n_features, np.int64)
        idf, owner = self._idf[chosen], np.repeat(np.arange(len(counts)), counts)
        squares = np.bincount(owner, idf * idf, len(counts)) + np.tile([self.damping[block] for block in BLOCKS], len(texts))
        values = (idf / np.sqrt(np.where(squares > 0, squares, 1.0))[owner]).astype(np.float32)
        all_rows, all_negated = np.array(rows, np.int64), np.array(negated, np.float32)
        words_end, features_end = np.cumsum(n_words).tolist(), np.cumsum(counts)[len(BLOCKS) - 1 :: len(BLOCKS)].tolist()
        return [
            TextInput(all_rows[w:x], all_negated[w:x], chosen[f:g], values[f:g])
            for w, x, f, g in zip([0, *words_end], words_end, [0, *features_end], features_end, strict=False)
        ]

    def _read_word(self, token: str) -> tuple[int, bool, tuple[int, ...]]:
        """Return a word's row, whether a negation reaches it, and its known runs of characters."""
        negated = token[0] == NEGATED and len(token) > 1
        return self._row.get(plain(token), UNKNOWN), negated, tuple(self._known("characters", character_ngrams(token)))

    def _known(self, block: str, features: Iterable[str]) -> dict[int, None]:
        number = self._number[block]
        return dict.fromkeys(i for feature in features if (i := number.get(feature)) is not None)  # in a fixed order, unlike a set


class CompactModel:
    """The network's answers from arrays alone: no torch, and a score that cannot depend on other texts, to the last bit.

    raw = gain (W_features values + middle) + head(max and mean over all windows of relu(convolution(vectors))); outputs = limit tanh(raw / limit).

    The filters' products with every word's vector are computed once, when the first text comes: then a window is a sum of rows looked up
    (words x filters x 6 floats: 69 MB for 30,000 words and 96 filters).

    Args:
        weights: As `textgym.reward_modeling.scorers.compact.Compact` names them, float32.
    """

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.vectors, self.negation = weights["vectors.weight"], weights["negation"]
        filters = [weights[f"convolutions.{i}.weight"] for i in range(len(WIDTHS))]  # (filters, size, width)
        self.n_filters = filters[0].shape[0]
        self.filter_biases = [weights[f"convolutions.{i}.bias"] for i in range(len(WIDTHS))]
        # one product for all widths and places: (size, sum of widths * filters)
        self._columns = np.ascontiguousarray(np.concatenate([f[:, :, k].T for f in filters for k in range(f.shape[2])], axis=1))
        self.hidden, self.hidden_bias = weights["head.0.weight"].T.copy(), weights["head.0.bias"]
        self.output, self.output_bias = weights["head.3.weight"].T.copy(), weights["head.3.bias"]
        self.linear, self.middle, self.gain, self.limit = (weights[name] for name in ("linear", "middle", "gain", "limit"))

    @cached_property
    def _products(self) -> Array:
        """(words + 1, sum of widths * filters); the last row is that of no word at all."""
        products = self.vectors @ self._columns
        return np.concatenate([products, np.zeros_like(products[:1])])

    def outputs(self, texts: Sequence[TextInput]) -> Array:
        """Return the outputs, (len(texts), n_outputs)."""
        if not texts:
            return np.zeros((0, len(self.output_bias)), np.float32)
        pooled = self._pooled(texts)[:, None]  # (n, 1, 2 * widths * filters): one product a text, whose rounding no neighbour changes
        hidden = np.maximum(pooled @ self.hidden + self.hidden_bias, 0)
        raw = (hidden @ self.output)[:, 0] + self.output_bias + self.gain * self._counted(texts)
        answers: Array = self.limit * np.tanh(raw / self.limit)
        return answers

    def _pooled(self, texts: Sequence[TextInput]) -> Array:
        """Return maximum and mean over each text's windows, (n, 2 * widths * filters)."""
        margin = WIDTHS[-1] - 1
        lengths = np.array([len(text.words) for text in texts])
        ends = np.cumsum(lengths + margin)
        starts = ends - lengths - margin  # of a text's own stretch: the margin, then its words
        places = np.arange(ends[-1] + margin)
        is_word = np.ones(len(places), bool)
        is_word[ends[-1] :] = False
        for k in range(margin):
            is_word[starts + k] = False
        rows = np.full(len(places), len(self.vectors))
        rows[is_word] = np.concatenate([text.words for text in texts])
        products = self._products[rows]
        negated = places[is_word][np.concatenate([text.negated for text in texts]) > 0]
        products[negated] += self.negation @ self._columns
        parts, column = [], 0
        for width, bias in zip(WIDTHS, self.filter_biases, strict=True):
            windows = np.zeros((ends[-1], self.n_filters), np.float32) + bias  # one begins at every place
            for k in range(width):
                windows += products[k : k + ends[-1], column : column + self.n_filters]
                column += self.n_filters
            np.maximum(windows, 0, out=windows)
            for k in range(margin - width + 1):
                windows[starts + k] = 0  # they touch no word; never negative, 0 wins no maximum
            parts += [np.maximum.reduceat(windows, starts), np.add.reduceat(windows, starts) / (lengths + width - 1)[:, None]]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _counted(self, texts: Sequence[TextInput]) -> Array:
        """Return what the wide part says of each text, (n, n_outputs)."""
        own = [text.wide for text in texts if text.wide is not None]
        if len(own) == len(texts):
            return np.stack(own)
        owner = np.repeat(np.arange(len(texts)), [len(text.features) for text in texts])
        weighted = self.linear[np.concatenate([text.features for text in texts])] * np.concatenate([t.values for t in texts])[:, None]
        sums: Array = np.stack([np.bincount(owner, column, len(texts)) for column in weighted.T], axis=1).astype(np.float32)
        return sums + self.middle
