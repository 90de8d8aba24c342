"""Evaluation: how well a reward agrees with human judgements, with intervals, against baselines and against people themselves."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.experiments.statistics import Estimate
from textgym.reward_modeling.judgements import JudgementSet, PreferencePair, RatedText
from textgym.reward_modeling.metrics import correlation

Array = NDArray[np.float64]
N_RESAMPLES = 1000
MOST_PAIRED = 2500  # texts whose pairs are all looked at; of more, a seeded sample
SAME_LENGTH = 0.1  # two texts are as long if their word counts differ by at most this share
N_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Predictions against truth in bins of equally many texts, (bins,) each."""

    predicted: Array
    observed: Array
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean |predicted − observed| over the texts (Naeini et al. 2015; here for bins of equal count)."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        reward: The reward's name.
        kind: Of the judgements.
        n: Number of judgements.
        figures: Metric by name, with a 95 % bootstrap interval over the judgements.
        baselines: The same figures for other rewards by name.
        sources: Number of judgements and figures by source.
        classes: Precision, recall, F1 and support by class.
        thresholds: Accuracy, precision, recall and F1 of "score > threshold" for "rating > middle of the scale", (thresholds,) each.
        reliability: Calibration; None for a score that is no estimate of the judgement.
        ceiling: How well people agree with each other; empty where no individual ratings are known.
        truth, scores: The judgements and the rewards, (n,) each; for pairs the margin (1 where none was asked) and the score difference.
        texts: What was judged, (n,).
    """

    reward: str
    kind: str
    n: int
    figures: Mapping[str, Estimate]
    baselines: Mapping[str, Mapping[str, Estimate]]
    sources: Mapping[str, tuple[int, Mapping[str, Estimate]]]
    classes: Mapping[str, Mapping[str, float]]
    thresholds: Mapping[str, Array]
    reliability: Reliability | None
    ceiling: Mapping[str, float]
    truth: Array
    scores: Array
    texts: Sequence[str] = field(repr=False)


Scorer = Callable[[Sequence[Episode]], Array]


def evaluate(
    reward: str, score: Scorer, judgements: "JudgementSet[Any]", baselines: Mapping[str, Scorer] | None = None, seed: int = 0
) -> Evaluation:
    """Compare a reward with human judgements that it was not fitted on.

    Args:
        reward: Its name, for the report.
        score: Its `score(episodes) -> (n,)`.
        judgements: Ratings or preference pairs, at least 10.
        baselines: Other rewards by name, measured in the same way.
        seed: Of the bootstrap.

    Raises:
        InvalidArgumentError: The judgements are of another kind or too few.
    """
    if judgements.kind not in ("ratings", "pairs"):
        raise InvalidArgumentError(f"a reward is evaluated on ratings or pairs, got {judgements.kind}: convert them first")
    if len(judgements) < 10:
        raise InvalidArgumentError(f"at least 10 judgements are needed to say anything, got {len(judgements)}")
    if judgements.kind == "ratings":
        return _on_ratings(reward, score, judgements, baselines or {}, seed)
    return _on_pairs(reward, score, judgements, baselines or {}, seed)


# --- ratings -------------------------------------------------------------------------------------------------------------------------


def _on_ratings(reward: str, score: Scorer, judgements: JudgementSet[RatedText], baselines: Mapping[str, Scorer], seed: int) -> Evaluation:
    items = judgements.items
    episodes = [Episode(item.prompt, item.text) for item in items]
    texts = [episode.text for episode in episodes]
    truth = np.array([item.rating for item in items])
    lengths = np.array([len(text.split()) for text in texts], float)
    low = judgements.low if judgements.low is not None else float(truth.min())
    high = judgements.high if judgements.high is not None else float(truth.max())
    middle = (low + high) / 2
    scores = np.asarray(score(episodes), float)

    def figures(values: Array, where: NDArray[np.intp]) -> dict[str, Estimate]:
        return _rating_figures(values[where], truth[where], lengths[where], middle, seed)

    everything = np.arange(len(items))
    by_source = {name: np.flatnonzero([item.source == name for item in items]) for name in sorted({item.source for item in items})}
    return Evaluation(
        reward,
        "ratings",
        len(items),
        figures(scores, everything),
        {name: figures(np.asarray(other(episodes), float), everything) for name, other in baselines.items()},
        {name or "(none)": (len(rows), figures(scores, rows)) for name, rows in by_source.items() if len(rows) >= 10},
        _by_class(scores > middle, truth > middle, ("not liked", "liked")),
        _by_threshold(scores, truth > middle),
        _reliability(scores, truth),
        human_ceiling([item.ratings for item in items], seed),
        truth,
        scores,
        texts,
    )


def _rating_figures(scores: Array, truth: Array, lengths: Array, middle: float, seed: int) -> dict[str, Estimate]:
    rng = np.random.default_rng(seed)
    n = len(scores)
    pairs = _Pairs(scores, truth, lengths, rng)
    data = {"score": scores, "truth": truth, **_ranks(scores, truth, lengths)}
    samples: list[dict[str, float]] = []
    for _ in range(N_RESAMPLES):
        rows = rng.integers(n, size=n)
        samples.append({**_plain_figures({k: v[rows] for k, v in data.items()}, middle), **pairs.resampled(rows)})
    value = {**_plain_figures(data, middle), **pairs.resampled(np.arange(n)), "kendall": _kendall(scores, truth)}
    drawn = {name: np.array([s[name] for s in samples]) for name in samples[0]}
    drawn["kendall"] = np.array([_kendall(scores[r], truth[r]) for r in (rng.integers(n, size=n) for _ in range(200))])
    return {name: _estimate(value[name], drawn[name]) for name in value}


def _ranks(scores: Array, truth: Array, lengths: Array) -> dict[str, Array]:
    """Return the ranks in the full sample: a resample keeps their order, so ranking once is enough."""
    from scipy.stats import rankdata

    return {"score rank": rankdata(scores), "truth rank": rankdata(truth), "length rank": rankdata(lengths)}


def _plain_figures(data: Mapping[str, Array], middle: float) -> dict[str, float]:
    scores, truth = data["score"], data["truth"]
    liked, wanted = scores > middle, truth > middle
    hits = float((liked & wanted).sum())
    precision = hits / liked.sum() if liked.any() else 0.0
    recall = hits / wanted.sum() if wanted.any() else 0.0
    return {
        "pearson": correlation(scores, truth),
        "spearman": correlation(data["score rank"], data["truth rank"]),
        "mse": float(np.mean((scores - truth) ** 2)),
        "accuracy": float(np.mean(liked == wanted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": 2 * hits / float(liked.sum() + wanted.sum()) if (liked | wanted).any() else 0.0,
        "length correlation": correlation(data["score rank"], data["length rank"]),
        "length correlation of truth": correlation(data["truth rank"], data["length rank"]),
    }


class _Pairs:
    """All pairs of texts with different ratings: who orders them as people do, and who does among texts of one length."""

    def __init__(self, scores: Array, truth: Array, lengths: Array, rng: np.random.Generator) -> None:
        n = len(scores)
        self.rows = np.sort(rng.choice(n, MOST_PAIRED, replace=False)) if n > MOST_PAIRED else np.arange(n)
        s, t, words = scores[self.rows], truth[self.rows], lengths[self.rows]
        gap = np.sign(t[:, None] - t[None, :])
        right = ((np.sign(s[:, None] - s[None, :]) * gap + 1) / 2).astype(np.float32)  # equal scores count half
        self.valid = (gap != 0).astype(np.float32)
        self.right = right * self.valid
        alike = np.abs(words[:, None] - words[None, :]) <= SAME_LENGTH * np.maximum(words[:, None], words[None, :])
        self.valid_alike, self.right_alike = self.valid * alike, self.right * alike

    def resampled(self, rows: NDArray[np.intp]) -> dict[str, float]:
        """Return both accuracies where the texts `rows` (with repeats) are the sample."""
        weights = np.bincount(rows, minlength=int(self.rows[-1]) + 1)[self.rows].astype(np.float32)

        def share(right: Any, valid: Any) -> float:
            total = float(weights @ valid @ weights)
            return float(weights @ right @ weights) / total if total else math.nan

        return {
            "pairwise accuracy": share(self.right, self.valid),
            "same-length accuracy": share(self.right_alike, self.valid_alike),
        }


def _kendall(x: Array, y: Array) -> float:
    from scipy.stats import kendalltau

    found = float(kendalltau(x, y).statistic)
    return found if math.isfinite(found) else 0.0


def _by_class(predicted: NDArray[np.bool_], wanted: NDArray[np.bool_], names: tuple[str, str]) -> dict[str, dict[str, float]]:
    table = {}
    for name, p, w in ((names[0], ~predicted, ~wanted), (names[1], predicted, wanted)):
        hits = float((p & w).sum())
        table[name] = {
            "precision": hits / float(p.sum()) if p.any() else 0.0,
            "recall": hits / float(w.sum()) if w.any() else 0.0,
            "f1": 2 * hits / float(p.sum() + w.sum()) if (p | w).any() else 0.0,
            "support": float(w.sum()),
        }
    return table


def _by_threshold(scores: Array, wanted: NDArray[np.bool_]) -> dict[str, Array]:
    thresholds = np.unique(np.quantile(scores, np.linspace(0.02, 0.98, 49)))
    liked = scores[None, :] > thresholds[:, None]
    hits = (liked & wanted).sum(1).astype(float)
    found, there = liked.sum(1), max(1, int(wanted.sum()))
    return {
        "threshold": thresholds,
        "accuracy": (liked == wanted).mean(1),
        "precision": hits / np.maximum(1, found),
        "recall": hits / there,
        "f1": 2 * hits / np.maximum(1, found + wanted.sum()),
    }


def _reliability(predicted: Array, observed: Array) -> Reliability:
    bins = np.array_split(np.argsort(predicted, kind="stable"), min(N_BINS, len(predicted)))
    return Reliability(
        np.array([predicted[b].mean() for b in bins]), np.array([observed[b].mean() for b in bins]), np.array([len(b) for b in bins])
    )


def human_ceiling(ratings: Sequence[Sequence[float]], seed: int = 0, n_draws: int = 50) -> dict[str, float]:
    """Return how well people predict people, as Pearson correlations; {} unless most texts have four raters or more.

    "one human": one random rater of each text against the mean of its others. "split-half": the means of two random halves of the
    raters, corrected to the full number of raters (Spearman 1910; Brown 1910): what a perfect predictor of the mean could reach is its root.
    """
    known = [np.asarray(r, float) for r in ratings if len(r) >= 4]
    if len(known) < max(10, len(ratings) // 2):
        return {}
    rng = np.random.default_rng(seed)
    one, halves = [], []
    for _ in range(n_draws):
        mixed = [rng.permutation(r) for r in known]
        one.append(correlation(np.array([r[0] for r in mixed]), np.array([r[1:].mean() for r in mixed])))
        first, second = (np.array([part.mean() for part in parts]) for parts in zip(*[np.array_split(r, 2) for r in mixed], strict=True))
        halves.append(correlation(first, second))
    half = float(np.mean(halves))
    return {"one human": float(np.mean(one)), "split-half": half * 2 / (1 + half)}


# --- preference pairs ----------------------------------------------------------------------------------------------------------------


def _on_pairs(
    reward: str, score: Scorer, judgements: JudgementSet[PreferencePair], baselines: Mapping[str, Scorer], seed: int
) -> Evaluation:
    items = [item for item in judgements.items if not item.tie]
    if len(items) < 10:
        raise InvalidArgumentError(f"at least 10 pairs that are no ties are needed, got {len(items)}")
    chosen = [Episode(item.prompt, item.chosen) for item in items]
    rejected = [Episode(item.prompt, item.rejected) for item in items]
    words = np.array([[len(c.continuation.split()), len(r.continuation.split())] for c, r in zip(chosen, rejected, strict=True)], float)
    alike = np.abs(words[:, 0] - words[:, 1]) <= SAME_LENGTH * words.max(1)

    def differences(scorer: Scorer) -> Array:
        both: Array = np.asarray(scorer([*chosen, *rejected]), np.float64)
        return np.subtract(both[: len(items)], both[len(items) :])

    def figures(gaps: Array, where: NDArray[np.intp]) -> dict[str, Estimate]:
        return _pair_figures(gaps[where], alike[where], (words[:, 0] - words[:, 1])[where], seed)

    gaps, everything = differences(score), np.arange(len(items))
    by_source = {name: np.flatnonzero([item.source == name for item in items]) for name in sorted({item.source for item in items})}
    sides = np.random.default_rng(seed).random(len(items)) < 0.5  # which of a pair is called the first: else "chosen" would always be right
    probability = 1 / (1 + np.exp(-np.clip(np.where(sides, gaps, -gaps), -60, 60)))
    return Evaluation(
        reward,
        "pairs",
        len(items),
        figures(gaps, everything),
        {name: figures(differences(other), everything) for name, other in baselines.items()},
        {name or "(none)": (len(rows), figures(gaps, rows)) for name, rows in by_source.items() if len(rows) >= 10},
        {},
        {},
        _reliability(probability, sides.astype(float)),
        {},
        np.array([1.0 if item.margin is None else item.margin for item in items]),
        gaps,
        [f"{c.text} > {r.text}" for c, r in zip(chosen, rejected, strict=True)],
    )


def _pair_figures(gaps: Array, alike: NDArray[np.bool_], longer: Array, seed: int) -> dict[str, Estimate]:
    from scipy.stats import rankdata

    right = (np.sign(gaps) + 1) / 2
    ranks, longer_ranks = rankdata(gaps), rankdata(longer)
    log_loss = np.logaddexp(0.0, -gaps)  # of Bradley and Terry's probability

    def plain(rows: NDArray[np.intp]) -> dict[str, float]:
        same = rows[alike[rows]]
        return {
            "pairwise accuracy": float(right[rows].mean()),
            "same-length accuracy": float(right[same].mean()) if len(same) else math.nan,
            "log loss": float(log_loss[rows].mean()),
            "length correlation": correlation(ranks[rows], longer_ranks[rows]),
        }

    rng, n = np.random.default_rng(seed), len(gaps)
    samples = [plain(rng.integers(n, size=n)) for _ in range(N_RESAMPLES)]
    value = plain(np.arange(n))
    return {name: _estimate(value[name], np.array([s[name] for s in samples])) for name in value}


def _estimate(value: float, drawn: Array) -> Estimate:
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))
