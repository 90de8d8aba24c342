"""Fit the reward "human-rating" on the training split and write its weights beside the data.

Usage: python tools/fit_human_rating.py           (needs scikit-learn; the reward itself does not)

Ridge regression on three blocks of binary n-gram features (words; beginnings of one to three words; two to five characters; negation
is marked in all), each weighted by idf, divided by its L2 norm, and scaled by how far a feature's own sentences lie from the mean, in
the spirit of the log-count ratios of Wang and Manning (2012), "Baselines and Bigrams". The squashing 4 tanh(slope x + intercept) is
fitted to out-of-fold predictions, so that it is calibrated without a look at the other splits. The constants below were chosen on the
validation split; the test split is read only for the report at the end.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix, diags, hstack
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from textgym_plugins.human_rating import BLOCKS, DATA, HumanRating

from textgym.reward_modeling.data.judgements import RatedText
from textgym.reward_modeling.data.reading import read_judgements
from textgym.reward_modeling.scorers.text_features import character_ngrams, ngrams, tokens

ALPHA = 2.0  # ridge penalty
MIN_SENTENCES = 2  # a feature must occur in so many training sentences
DAMPING = 0.1  # of a text's mean squared norm, added to each: a lone word, and a word nobody knows, are rated nearer the middle
FLOOR = 0.1  # of a feature's mean deviation, so that no feature is lost
POWER = 0.5  # of the deviation

FEATURES = {
    "words": tokens,
    "ngrams": lambda text: list(ngrams(tokens(text))),
    "characters": lambda text: [gram for token in tokens(text) for gram in character_ngrams(token)],
}


class Model:
    """The fitted features of the three blocks and the ridge on them."""

    def __init__(self, texts: list[str], ratings: np.ndarray) -> None:
        self.vocabulary, self.idf, self.scale, self.damping = {}, {}, {}, {}
        for block in BLOCKS:
            counter = CountVectorizer(analyzer=FEATURES[block], min_df=MIN_SENTENCES, binary=True)
            present = counter.fit_transform(texts)
            count = np.asarray(present.sum(0)).ravel()
            deviation = np.abs(present.T @ (ratings - ratings.mean())) / (count + 1)
            scale = (deviation + FLOOR) ** POWER
            self.vocabulary[block] = counter.vocabulary_
            self.idf[block] = (np.log((1 + len(texts)) / (1 + count)) + 1).astype(np.float32)
            self.scale[block] = scale / np.sqrt(np.mean(scale**2))
            self.damping[block] = DAMPING * float(np.mean(present @ self.idf[block].astype(np.float64) ** 2))
        self.ridge = Ridge(alpha=ALPHA, solver="sparse_cg", tol=1e-4).fit(self.matrix(texts), ratings)

    def matrix(self, texts: list[str]) -> csr_matrix:
        """Return the weighted features, (len(texts), features of all blocks)."""
        parts = []
        for block in BLOCKS:
            counter = CountVectorizer(analyzer=FEATURES[block], vocabulary=self.vocabulary[block], binary=True)
            present = counter.transform(texts).astype(np.float64)
            norm = np.sqrt(present @ self.idf[block].astype(np.float64) ** 2 + self.damping[block])
            parts.append(diags(1 / norm) @ present @ diags(self.idf[block] * self.scale[block]))
        return hstack(parts).tocsr()

    def raw(self, texts: list[str]) -> np.ndarray:
        """Return the ridge's predictions without its intercept, (len(texts),)."""
        return self.ridge.predict(self.matrix(texts)) - self.ridge.intercept_

    def weights(self) -> dict[str, np.ndarray]:
        """Return each block's weights in the order of its vocabulary: coefficient times scale times idf."""
        cuts = np.cumsum([len(self.vocabulary[block]) for block in BLOCKS])[:-1]
        parts = np.split(self.ridge.coef_, cuts)
        return {block: part * self.scale[block] * self.idf[block] for block, part in zip(BLOCKS, parts, strict=True)}


def squash(raw: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Return ratings inside -4..4."""
    return 4 * np.tanh(slope * raw + intercept)


def calibrate(items: Sequence[RatedText], texts: list[str], ratings: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept that fit the ratings best on out-of-fold predictions of the training split."""
    raw = np.zeros(len(items))
    for inside, outside in GroupKFold(5).split(texts, groups=[item.group or "row:" + item.id for item in items]):
        model = Model([texts[i] for i in inside], ratings[inside])
        raw[outside] = model.raw([texts[i] for i in outside])
    slope, intercept = least_squares(lambda p: squash(raw, *p) - ratings, [0.25, 0.0]).x
    return float(slope), float(intercept)


def write(model: Model, metadata: dict[str, Any], reference: np.ndarray) -> None:
    """Write the model aside, then give it its name."""
    arrays: dict[str, np.ndarray] = {"metadata": np.frombuffer(json.dumps(metadata).encode(), np.uint8), "reference": reference}
    weights = model.weights()
    for block in BLOCKS:
        features = sorted(model.vocabulary[block], key=model.vocabulary[block].__getitem__)
        arrays[block] = np.frombuffer("\n".join(features).encode(), np.uint8)
        arrays[f"{block}.weights"] = weights[block].astype(np.float32)
        arrays[f"{block}.idf"] = model.idf[block]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    aside = DATA / "model.npz.tmp"
    aside.write_bytes(buffer.getvalue())
    os.replace(aside, DATA / "model.npz")


def report(items: Sequence[RatedText], predicted: np.ndarray) -> None:
    """Print how well the predictions agree with the ratings, with a bootstrap interval (2,000 resamples, seed 0)."""
    ratings = np.array([item.rating for item in items])
    sources = np.array([item.source for item in items])
    for name in ("all", "movie", "product", "tweet"):
        chosen = np.flatnonzero((sources == name) | (name == "all"))
        x, y = predicted[chosen], ratings[chosen]
        rng = np.random.default_rng(0)
        draws = [pearsonr(x[i], y[i])[0] for i in (rng.integers(0, len(x), len(x)) for _ in range(2000))]
        low, high = np.percentile(draws, [2.5, 97.5])
        print(
            f"  {name:8} n={len(x):5}  Pearson {pearsonr(x, y)[0]:.3f} [{low:.3f}, {high:.3f}]  Spearman {spearmanr(x, y)[0]:.3f}"
            f"  MSE {np.mean((x - y) ** 2):.2f}  slope {np.polyfit(x, y, 1)[0]:.2f}"
        )


def main() -> None:
    """Fit on the training split, write, report on the others."""
    judgements = read_judgements(DATA / "human_ratings.jsonl.gz")
    split = {name: judgements.split(name).items for name in ("train", "validation", "test")}
    texts = [item.text for item in split["train"]]
    ratings = np.array([item.rating for item in split["train"]])
    slope, intercept = calibrate(split["train"], texts, ratings)
    model = Model(texts, ratings)
    metadata = {
        "slope": slope,
        "intercept": intercept,
        "damping": model.damping,
        "fitted_on": "train",
        "training_ids_sha256": hashlib.sha256("\n".join(item.id for item in split["train"]).encode()).hexdigest(),
        "settings": {"alpha": ALPHA, "min_sentences": MIN_SENTENCES, "damping": DAMPING, "floor": FLOOR, "power": POWER},
    }
    reference = squash(model.raw([item.text for item in split["validation"]]), slope, intercept)
    write(model, metadata, reference)
    print(json.dumps(metadata), {block: len(model.vocabulary[block]) for block in BLOCKS}, (DATA / "model.npz").stat().st_size, "bytes")

    reward = HumanRating()
    for name in ("validation", "test"):
        print(name)
        report(split[name], np.array([reward.rate(item.text) for item in split[name]]))
    sample = [item.text for item in split["test"]]
    started, characters = time.perf_counter(), sum(map(len, sample))
    for text in sample:
        reward.rate(text)
    seconds = time.perf_counter() - started
    print(f"{len(sample) / seconds:.0f} texts/s at {characters / len(sample):.0f} characters a text")


if __name__ == "__main__":
    main()
