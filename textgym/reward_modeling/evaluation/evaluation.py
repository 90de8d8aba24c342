"""Evaluation: how well a reward agrees with human judgements, with intervals, against baselines and against people themselves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.classification import classification
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.experiments.statistics import Estimate
from textgym.reward_modeling.data.bootstrap import Units, drawing_units, resampler
from textgym.reward_modeling.data.judgements import JudgementSet, LabelledText, PreferencePair, RatedText
from textgym.reward_modeling.evaluation.uncertainty import UncertaintyCheck, check_uncertainty
from textgym.reward_modeling.metrics import correlation
from textgym.reward_modeling.models.abilities import Abilities, Scorer
from textgym.reward_modeling.reliability import Reliability, reliability, sides

Array = NDArray[np.float64]
N_RESAMPLES = 1000
MOST_PAIRED = 2500  # texts whose pairs are all looked at; of more, a seeded sample
OF_RATINGS = ("mse", "calibration error", "accuracy", "precision", "recall", "f1")  # figures that take a score for a rating
LEAST_RATERS = 4  # of a text, for two halves of them to say something
SAME_LENGTH = 0.1  # two texts are as long if their word counts differ by at most this share


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        reward: The reward's name.
        kind: Of the judgements.
        n: Number of judgements.
        figures: Metric by name, with a 95 % bootstrap interval over the judgements.
        baselines: The same figures for other rewards by name, the model without one of its parts among them; nan where one has none.
        sources: Number of judgements and figures by source.
        classes: Precision, recall, F1 and support by class.
        thresholds: Accuracy, precision, recall and F1 of "score > threshold" for "rating > middle of the scale", (thresholds,) each.
        reliability: Calibration; None for a score that is no estimate of the judgement: of ratings, one whose declared range is quite another
            than the scale. Such a score has no error in rating points, no calibration and no side of the middle, so these figures are nan.
        ceiling: How well people agree with each other, as `human_ceiling` says; empty where too few have four individual ratings.
        truth, scores: The judgements and the rewards, (n,) each; for pairs the margin (1 where none was asked) and the score difference,
            for labels the rank of the class.
        errors: How wrong each score is, (n,): |score - rating| (of a score that is none, the difference of their ranks, 0..1), how far the rejected text is ahead, 1 - probability of the true class.
        texts: What was judged, (n,).
        labels: Names of the classes in order, for labels.
        confusion: How many texts of each class (row) were taken for which (column), (classes, classes); None without class probabilities.
        uncertainty: Whether the reward is wrong where it is unsure; None where it does not say.
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
    errors: Array
    texts: Sequence[str] = field(repr=False)
    labels: tuple[str, ...] = ()
    confusion: NDArray[np.int64] | None = None
    uncertainty: UncertaintyCheck | None = None


def evaluate(
    reward: str,
    score: Scorer | Abilities,
    judgements: "JudgementSet[Any]",
    baselines: Mapping[str, Scorer | Abilities] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Compare a reward with human judgements that it was not fitted on.

    Args:
        reward: Its name, for the report.
        score: Its `score(episodes) -> (n,)`, or all it can say (`abilities.abilities_of`).
        judgements: Ratings, class labels or preference pairs, at least 10.
        baselines: Other rewards by name, measured in the same way.
        seed: Of the bootstrap.

    Raises:
        InvalidArgumentError: The judgements are of another kind or too few.
    """
    if judgements.kind not in ("ratings", "labels", "pairs"):
        raise InvalidArgumentError(f"a reward is evaluated on ratings, labels or pairs, got {judgements.kind}: convert them first")
    if len(judgements) < 10:
        raise InvalidArgumentError(f"at least 10 judgements are needed to say anything, got {len(judgements)}")
    able = score if isinstance(score, Abilities) else Abilities(score)
    others = {**{f"{reward} {name}": variant for name, variant in able.variants.items()}}
    others |= {name: other if isinstance(other, Abilities) else Abilities(other) for name, other in (baselines or {}).items()}
    if judgements.kind == "ratings":
        return _on_ratings(reward, able, judgements, others, seed)
    return (
        _on_labels(reward, able, judgements, others, seed)
        if judgements.kind == "labels"
        else _on_pairs(reward, able, judgements, others, seed)
    )


# --- ratings -------------------------------------------------------------------------------------------------------------------------


def _on_ratings(
    reward: str, able: Abilities, judgements: JudgementSet[RatedText], others: Mapping[str, Abilities], seed: int
) -> Evaluation:
    items = judgements.items
    episodes = [Episode(item.prompt, item.text) for item in items]
    texts = [episode.text for episode in episodes]
    truth = np.array([item.rating for item in items])
    lengths = np.array([len(text.split()) for text in texts], float)
    low = judgements.low if judgements.low is not None else float(truth.min())
    high = judgements.high if judgements.high is not None else float(truth.max())
    middle = (low + high) / 2
    scores = np.asarray(able.score(episodes), float)
    rates = able.may_be_ratings(low, high)
    errors = np.abs(scores - truth) if rates else _rank_errors(scores, truth)

    def figures(other: Abilities, values: Array, where: NDArray[np.intp]) -> dict[str, Estimate]:
        found = _rating_figures(values[where], truth[where], lengths[where], middle, seed)
        if not other.may_be_ratings(low, high):
            found |= dict.fromkeys(OF_RATINGS, Estimate(math.nan, math.nan, math.nan))
        return found

    everything = np.arange(len(items))
    by_source = {name: np.flatnonzero([item.source == name for item in items]) for name in sorted({item.source for item in items})}
    return Evaluation(
        reward,
        "ratings",
        len(items),
        figures(able, scores, everything),
        {name: figures(other, np.asarray(other.score(episodes), float), everything) for name, other in others.items()},
        {name or "(none)": (len(rows), figures(able, scores, rows)) for name, rows in by_source.items() if len(rows) >= 10},
        _by_class(scores > middle, truth > middle, ("not liked", "liked")) if rates else {},
        _by_threshold(scores, truth > middle),
        reliability(scores, truth) if rates else None,
        human_ceiling([item.ratings for item in items], seed),
        truth,
        scores,
        errors,
        texts,
        uncertainty=_checked(able, episodes, errors, seed),
    )


def _rank_errors(scores: Array, truth: Array) -> Array:
    from scipy.stats import rankdata

    found: Array = np.abs(rankdata(scores) - rankdata(truth)) / len(truth)
    return found


def _checked(able: Abilities, episodes: Sequence[Episode], errors: Array, seed: int) -> UncertaintyCheck | None:
    if able.uncertainty is None:
        return None
    return check_uncertainty(np.asarray(able.uncertainty(episodes), float), errors, able.uncertainty_kind, seed)


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
    return _estimates(value, drawn)


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
        "calibration error": reliability(scores, truth).error,
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
    return {names[0]: _scores_of(~predicted, ~wanted), names[1]: _scores_of(predicted, wanted)}


def _scores_of(predicted: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> dict[str, float]:
    """Return precision, recall, F1 and support of one class."""
    hits = float((predicted & wanted).sum())
    return {
        "precision": hits / float(predicted.sum()) if predicted.any() else 0.0,
        "recall": hits / float(wanted.sum()) if wanted.any() else 0.0,
        "f1": 2 * hits / float(predicted.sum() + wanted.sum()) if (predicted | wanted).any() else 0.0,
        "support": float(wanted.sum()),
    }


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


def human_ceiling(ratings: Sequence[Sequence[float]], seed: int = 0, n_draws: int = 50) -> dict[str, float]:
    """Return how well people predict people, as Pearson correlations; {} unless most texts have four raters or more.

    "one human": one random rater of each text against the mean of its others. "split-half": the means of two random halves of the
    raters, corrected to the full number of raters (Spearman 1910; Brown 1910): the reliability of the mean. "reachable": its root, the
    correlation of the mean of these raters with what a perfect model predicts, the mean of ever so many.
    """
    known = [np.asarray(r, float) for r in ratings if len(r) >= LEAST_RATERS]
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
    whole = half * 2 / (1 + half)
    return {"one human": float(np.mean(one)), "split-half": whole, "reachable": math.sqrt(max(0.0, whole))}


# --- class labels --------------------------------------------------------------------------------------------------------------------


def _on_labels(
    reward: str, able: Abilities, judgements: JudgementSet[LabelledText], others: Mapping[str, Abilities], seed: int
) -> Evaluation:
    items = judgements.items
    episodes = [Episode(item.prompt, item.text) for item in items]
    texts = [episode.text for episode in episodes]
    names = able.classes or judgements.classes or tuple(sorted({item.label for item in items}))
    unknown = {item.label for item in items} - set(names)
    if unknown:
        raise InvalidArgumentError(f"label {sorted(unknown)[0]!r} is none of the classes that {reward} knows: {', '.join(names)}")
    label = np.array([names.index(item.label) for item in items])
    lengths = np.array([len(text.split()) for text in texts], float)
    everything = np.arange(len(items))

    def figures(values: Array, chances: Array | None, rows: NDArray[np.intp]) -> dict[str, Estimate]:
        return _label_figures(values[rows], None if chances is None else chances[rows], label[rows], lengths[rows], len(names), seed)

    def chances_of(other: Abilities) -> Array | None:
        known = other.class_probabilities is not None and set(other.classes) == set(names)
        return (
            other.class_probabilities(episodes)[:, [other.classes.index(n) for n in names]] if known and other.class_probabilities else None
        )

    scores, chances = np.asarray(able.score(episodes), float), chances_of(able)
    by_source = {name: np.flatnonzero([item.source == name for item in items]) for name in sorted({item.source for item in items})}
    own = figures(scores, chances, everything)
    unmeasured = dict.fromkeys(own, Estimate(math.nan, math.nan, math.nan))
    compared = {n: {**unmeasured, **figures(np.asarray(o.score(episodes), float), chances_of(o), everything)} for n, o in others.items()}
    found = None if chances is None else chances.argmax(1)
    confusion = None
    if found is not None:
        confusion = np.zeros((len(names), len(names)), np.int64)
        np.add.at(confusion, (label, found), 1)
    wrong = (found != label).astype(float) if found is not None else None
    return Evaluation(
        reward,
        "labels",
        len(items),
        own,
        {n: {key: values[key] for key in own} for n, values in compared.items()},
        {name or "(none)": (len(rows), figures(scores, chances, rows)) for name, rows in by_source.items() if len(rows) >= 10},
        {} if found is None else {name: _scores_of(found == k, label == k) for k, name in enumerate(names)},
        {},
        None if chances is None or wrong is None else reliability(chances.max(1), 1 - wrong),
        {},
        label.astype(float),
        scores,
        np.zeros(len(items)) if chances is None else 1 - chances[everything, label],
        texts,
        labels=names,
        confusion=confusion,
        uncertainty=None if wrong is None else _checked(able, episodes, wrong, seed),
    )


def _label_figures(
    scores: Array, chances: Array | None, label: NDArray[np.int64], lengths: Array, n_classes: int, seed: int
) -> dict[str, Estimate]:
    """Return how scores order the classes, and where class probabilities (n, classes) are known how good these are."""
    rng = np.random.default_rng(seed)
    truth, n = label.astype(float), len(label)
    pairs = _Pairs(scores, truth, lengths, rng)
    ranks = _ranks(scores, truth, lengths)

    def plain(rows: NDArray[np.intp]) -> dict[str, float]:
        figures = {
            **pairs.resampled(rows),
            "spearman": correlation(ranks["score rank"][rows], ranks["truth rank"][rows]),
            "length correlation": correlation(ranks["score rank"][rows], ranks["length rank"][rows]),
            "length correlation of truth": correlation(ranks["truth rank"][rows], ranks["length rank"][rows]),
        }
        if chances is None:
            return figures
        found = chances[rows].argmax(1)
        right = (found == label[rows]).astype(float)
        named = classification(found, label[rows], n_classes)
        return {
            "accuracy": named["accuracy"],
            "macro f1": named["f1"],
            "log loss": float(-np.log(chances[rows, label[rows]].clip(1e-12)).mean()),
            "calibration error": reliability(chances[rows].max(1), right).error,
            **figures,
        }

    samples = [plain(rng.integers(n, size=n)) for _ in range(N_RESAMPLES)]
    value = plain(np.arange(n))
    return _estimates(value, {name: np.array([s[name] for s in samples]) for name in value})


# --- preference pairs ----------------------------------------------------------------------------------------------------------------


def _on_pairs(
    reward: str, able: Abilities, judgements: JudgementSet[PreferencePair], others: Mapping[str, Abilities], seed: int
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

    first = sides(len(items), seed)
    units = drawing_units(replace(judgements, items=tuple(items)))

    def chances_of(other: Abilities, gaps: Array) -> Array:
        """Return the probability that the chosen text is preferred, (n,): the model's own, or Bradley and Terry's of the score difference."""
        if other.preference_probability is not None:
            return np.asarray(other.preference_probability(chosen, rejected), np.float64)
        return np.asarray(1 / (1 + np.exp(-np.clip(gaps, -60, 60))), np.float64)

    def figures(gaps: Array, chances: Array, rows: NDArray[np.intp]) -> dict[str, Estimate]:
        longer = (words[:, 0] - words[:, 1])[rows]
        return _pair_figures(gaps[rows], chances[rows], first[rows], alike[rows], longer, [units[row] for row in rows], seed)

    def compared(other: Abilities) -> dict[str, Estimate]:
        gaps = differences(other.score)
        return figures(gaps, chances_of(other, gaps), everything)

    gaps, everything = differences(able.score), np.arange(len(items))
    chances = chances_of(able, gaps)
    by_source = {name: np.flatnonzero([item.source == name for item in items]) for name in sorted({item.source for item in items})}
    check = None
    if able.preference_probability is not None:
        check = check_uncertainty(0.5 - np.abs(chances - 0.5), (1 - np.sign(gaps)) / 2, "probability of the less likely order", seed, units)
    return Evaluation(
        reward,
        "pairs",
        len(items),
        figures(gaps, chances, everything),
        {name: compared(other) for name, other in others.items()},
        {name or "(none)": (len(rows), figures(gaps, chances, rows)) for name, rows in by_source.items() if len(rows) >= 10},
        {},
        {},
        reliability(np.where(first, chances, 1 - chances), first.astype(float)),
        {},
        np.array([1.0 if item.margin is None else item.margin for item in items]),
        gaps,
        -gaps,
        [f"{c.text} > {r.text}" for c, r in zip(chosen, rejected, strict=True)],
        uncertainty=check,
    )


def _pair_figures(
    gaps: Array, chances: Array, first: NDArray[np.bool_], alike: NDArray[np.bool_], longer: Array, units: Units, seed: int
) -> dict[str, Estimate]:
    """Return the figures; the intervals are over what the pairs are made of (`drawing_units`), for pairs that share texts err together."""
    from scipy.stats import rankdata

    right = (np.sign(gaps) + 1) / 2
    ranks, longer_ranks = rankdata(gaps), rankdata(longer)
    log_loss = -np.log(chances.clip(1e-26))
    called = np.where(first, chances, 1 - chances)

    def plain(rows: NDArray[np.intp]) -> dict[str, float]:
        same = rows[alike[rows]]
        return {
            "pairwise accuracy": float(right[rows].mean()),
            "same-length accuracy": float(right[same].mean()) if len(same) else math.nan,
            "log loss": float(log_loss[rows].mean()),
            "calibration error": reliability(called[rows], first[rows].astype(float)).error,
            "length correlation": correlation(ranks[rows], longer_ranks[rows]),
        }

    rng, everything = np.random.default_rng(seed), np.arange(len(gaps))
    sample = resampler(units)
    drawn = (np.repeat(everything, sample(rng)) for _ in range(N_RESAMPLES))
    samples = [plain(rows) for rows in drawn if len(rows)]
    value = plain(everything)
    return _estimates(value, {name: np.array([s[name] for s in samples]) for name in value})


def _estimates(values: Mapping[str, float], drawn: Mapping[str, Array]) -> dict[str, Estimate]:
    return {name: (_unbiased if name == "calibration error" else _estimate)(value, drawn[name]) for name, value in values.items()}


def _estimate(value: float, drawn: Array) -> Estimate:
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))


def _unbiased(value: float, drawn: Array) -> Estimate:
    """Return an error's basic bootstrap interval (Davison and Hinkley 1997, section 5.2): the draws' quantiles mirrored at the value.

    Noise adds to a mean of absolute values, and the noise of resampling comes on top of the sample's own: percentiles of the draws would lie
    above the value, and above the truth. The mirrored ones hold it; they end at 0 and at the value at the least.
    """
    found = _estimate(value, drawn)
    return Estimate(value, min(value, max(0.0, 2 * value - found.high)), max(value, 2 * value - found.low))
