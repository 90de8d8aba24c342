"""Evaluations say what brute force says, and know people's own limits."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textgym
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, LabelledText, PreferencePair, RatedText
from textgym.reward_modeling.evaluation import evaluation
from textgym.reward_modeling.evaluation.evaluation import evaluate, human_ceiling
from textgym.reward_modeling.evaluation.learning_curve import learning_curve
from textgym.reward_modeling.evaluation.report import shown, write_evaluation
from textgym.reward_modeling.evaluation.uncertainty import check_uncertainty
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.models.abilities import Abilities, abilities_of
from textgym.reward_modeling.reliability import reliability
from textgym.rewards import make_reward

from .conftest import worth

HASHED = {"features": "hashed", "size": 256, "dropout": 0.0}


def number(episodes: Sequence[textgym.Episode]) -> Any:
    """The number that a text begins with."""
    return np.array([float(e.text.split()[0]) for e in episodes])


def ratings(scores: Sequence[float], truth: Sequence[float], n_words: Sequence[int]) -> JudgementSet[RatedText]:
    items = [
        RatedText(
            id=str(i), text=" ".join([str(s), *["word"] * (n - 1)]), rating=t, source=("even", "odd")[i % 2] if len(scores) == 60 else ""
        )
        for i, (s, t, n) in enumerate(zip(scores, truth, n_words, strict=True))
    ]
    return JudgementSet("ratings", tuple(items), -4, 4)


@pytest.fixture
def noisy() -> JudgementSet[RatedText]:
    rng = np.random.default_rng(0)
    truth = np.round(rng.uniform(-4, 4, 60), 1)
    return ratings(np.round(truth + rng.normal(0, 1.5, 60), 2), truth, rng.integers(2, 12, 60))


def test_figures_are_those_of_brute_force(noisy: JudgementSet[RatedText]) -> None:
    found = evaluate("number", number, noisy)
    s, t = found.scores, found.truth
    words = [len(text.split()) for text in found.texts]
    right, right_alike = [], []
    for i, j in itertools.combinations(range(60), 2):
        if t[i] != t[j]:
            credit = 0.5 if s[i] == s[j] else float((s[i] > s[j]) == (t[i] > t[j]))
            right.append(credit)
            if abs(words[i] - words[j]) <= 0.1 * max(words[i], words[j]):
                right_alike.append(credit)
    expected = {
        "pearson": np.corrcoef(s, t)[0, 1],
        "mse": np.mean((s - t) ** 2),
        "pairwise accuracy": np.mean(right),
        "same-length accuracy": np.mean(right_alike),
        "accuracy": np.mean((s > 0) == (t > 0)),
        "precision": np.mean(t[s > 0] > 0),
        "recall": np.mean(s[t > 0] > 0),
    }
    for name, value in expected.items():
        assert found.figures[name].value == pytest.approx(value, rel=1e-5), name
    for name, estimate in found.figures.items():
        assert estimate.low <= estimate.value <= estimate.high, name
    assert {name: n for name, (n, _) in found.sources.items()} == {"even": 30, "odd": 30}
    assert found.classes["liked"]["recall"] == pytest.approx(expected["recall"])


def test_a_perfect_reward_is_called_perfect_and_a_constant_is_not() -> None:
    truth = np.linspace(-4, 4, 40)
    found = evaluate("number", number, ratings(truth, truth, [5] * 40), {"constant": lambda e: np.zeros(len(e))})
    assert found.figures["pearson"].value == pytest.approx(1)
    assert found.figures["kendall"].value == pytest.approx(1)
    assert found.figures["pairwise accuracy"].value == 1
    assert found.reliability is not None
    assert found.reliability.error == pytest.approx(0, abs=1e-12)
    constant = found.baselines["constant"]
    assert (constant["pearson"].value, constant["kendall"].value, constant["pairwise accuracy"].value) == (0, 0, 0.5)


def test_a_reward_that_is_off_by_two_has_a_calibration_error_of_two() -> None:
    truth = np.linspace(-2, 2, 40)
    found = evaluate("number", number, ratings(truth + 2, truth, [5] * 40))
    assert found.reliability is not None
    assert found.reliability.error == pytest.approx(2)
    assert found.figures["pearson"].value == pytest.approx(1)


def test_a_reward_that_pays_for_length_is_seen() -> None:
    rng = np.random.default_rng(1)
    n_words = rng.integers(2, 40, 200)
    found = evaluate("words", lambda e: [len(x.text.split()) for x in e], ratings(rng.normal(size=200), rng.uniform(-4, 4, 200), n_words))
    assert found.figures["length correlation"].value == pytest.approx(1)
    assert abs(found.figures["length correlation of truth"].value) < 0.2


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=80)
        scores = 0.6 * truth + 0.8 * rng.normal(size=80)  # correlation 0.6
        estimate = evaluate("number", number, ratings(scores, truth, [3] * 80)).figures["pearson"]
        hits += estimate.low <= 0.6 <= estimate.high
    assert hits >= 16


def test_the_calibration_error_has_an_interval_that_holds_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluation, "N_RESAMPLES", 200)
    hits = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = 0.7 * rng.normal(size=150)
        truth = np.clip(scores + 0.2 + 0.9 * rng.normal(size=150), -4, 4)  # off by 0.2 everywhere
        estimate = evaluate("number", number, ratings(scores, truth, [3] * 150)).figures["calibration error"]
        assert 0 <= estimate.low <= estimate.value <= estimate.high
        hits += estimate.low <= 0.2 <= estimate.high
    assert hits >= 16  # of percentiles 3 or so hold it


def test_a_declared_range_tells_whether_scores_are_ratings(noisy: JudgementSet[RatedText]) -> None:
    for low, high, rates in ((-4, 4, True), (-3.7, 3.9, True), (-np.inf, np.inf, True), (0, 1, False), (0, np.inf, False), (1, 5, False)):
        found = evaluate("number", Abilities(number, low=low, high=high), noisy)
        assert [np.isfinite(found.figures[name].value) for name in ("mse", "f1", "pearson")] == [rates, rates, True]
        assert (found.reliability is not None, bool(found.classes)) == (rates, rates)
        assert rates or found.errors.max() <= 1  # by ranks


def test_preferences_count_what_was_preferred_and_ties_are_left_out() -> None:
    pairs = [
        PreferencePair(id=str(i), chosen=f"{c} x", rejected=f"{r} y") for i, (c, r) in enumerate([(2, 1)] * 9 + [(1, 2)] * 3 + [(1, 1)] * 2)
    ]
    tie = PreferencePair(id="tie", chosen="0 a", rejected="9 b", tie=True)
    found = evaluate("number", number, JudgementSet("pairs", (*pairs, tie)))
    assert found.n == 14
    assert found.figures["pairwise accuracy"].value == pytest.approx((9 + 2 * 0.5) / 14)
    assert found.figures["log loss"].value == pytest.approx((9 * np.log1p(np.exp(-1)) + 3 * np.log1p(np.exp(1)) + 2 * np.log(2)) / 14)


def test_intervals_of_pairs_that_share_texts_hold_the_truth(monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluation, "N_RESAMPLES", 200)
    expected, hits = 0.5 + np.arcsin(0.6) / np.pi, 0  # of pairs under a correlation of 0.6
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=30)
        texts = [f"{score:.9f} text of {rng.bytes(9).hex()}" for score in 0.6 * truth + 0.8 * rng.normal(size=30)]
        order = np.argsort(truth)
        pairs = [
            PreferencePair(id=f"{i}-{j}", chosen=texts[order[i]], rejected=texts[order[j]])
            for i in range(30)
            for j in range(i)
            if (i + j) % 2
        ]
        estimate = evaluate("number", number, JudgementSet("pairs", tuple(pairs))).figures["pairwise accuracy"]
        hits += estimate.low <= expected <= estimate.high
    assert hits >= 16  # were pairs drawn one by one, 8 or so


def test_people_set_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    raters = truth[:, None] + rng.normal(size=(3000, 8))  # reliability of one rater 1/2, of the mean of eight 8/9
    found = human_ceiling([tuple(r) for r in raters])
    assert found["split-half"] == pytest.approx(8 / 9, abs=0.01)
    assert found["one human"] == pytest.approx(1 / np.sqrt(2 * (1 + 1 / 7)), abs=0.015)
    assert found["reachable"] == pytest.approx(np.corrcoef(truth, raters.mean(1))[0, 1], abs=0.01)  # what the truth itself reaches
    assert human_ceiling([(1.0,), (2.0,)] * 20) == {}


def test_what_cannot_be_evaluated_is_one_line() -> None:
    texts = JudgementSet("texts", tuple(ExpertText(id=str(i), text="a") for i in range(20)))
    with pytest.raises(textgym.InvalidArgumentError, match="ratings, labels or pairs, got texts"):
        evaluate("number", number, texts)
    with pytest.raises(textgym.InvalidArgumentError, match="at least 10 judgements"):
        evaluate("number", number, ratings([1], [1], [1]))


def test_the_report_shows_figures_texts_and_no_markup_of_theirs(tmp_path: Path, noisy: JudgementSet[RatedText]) -> None:
    evil = RatedText(id="evil", text="-4 <script>alert(1)</script>", rating=4.0)
    judgements = JudgementSet("ratings", (*noisy.items, evil), -4, 4)
    write_evaluation(evaluate("number", number, judgements, {"constant": lambda e: np.zeros(len(e))}), tmp_path / "r.html", "some <data>")
    page = (tmp_path / "r.html").read_text()
    for part in ("pairwise accuracy", "constant", "Furthest from people", "data:image/png", "&lt;script&gt;", "some &lt;data&gt;"):
        assert part in page
    assert "<script>" not in page
    assert "No ceiling: most texts have fewer than 4 individual ratings" in page


# --- class labels, uncertainty, learning curve ---------------------------------------------------------------------------------------


def test_classes_are_counted_as_brute_force_counts_them(labels: Any) -> None:
    model = fit_reward_model(labels, scorer="mlp", loss="cross-entropy", settings=FitSettings(epochs=3, scorer=HASHED)).reward
    held_out = labels.split("validation")
    found = evaluate("model", abilities_of(make_reward(model)), held_out, {"words": lambda e: np.array([float(len(x.text)) for x in e])})
    chances = model.class_probabilities([textgym.Episode("", item.text) for item in held_out.items])
    said = [model.classes[k] for k in chances.argmax(1)]
    truth = [item.label for item in held_out.items]
    pairs = list(zip(truth, said, strict=True))
    assert found.figures["accuracy"].value == pytest.approx(np.mean([t == s for t, s in pairs]))
    assert found.confusion is not None
    for i, a in enumerate(found.labels):
        assert found.confusion[i].tolist() == [pairs.count((a, b)) for b in found.labels]
        hits, called = pairs.count((a, a)), said.count(a)
        assert found.classes[a]["precision"] == pytest.approx(hits / called if called else 0)
        assert found.classes[a]["recall"] == pytest.approx(hits / truth.count(a))
    f1 = [c["f1"] for c in found.classes.values()]
    assert found.figures["macro f1"].value == pytest.approx(np.mean(f1))
    assert found.figures["log loss"].value == pytest.approx(
        -np.mean([np.log(p[model.classes.index(t)]) for p, t in zip(chances, truth, strict=True)])
    )
    assert found.reliability is not None
    assert found.figures["calibration error"].value == pytest.approx(found.reliability.error)
    assert np.isnan(found.baselines["words"]["accuracy"].value)
    assert np.isfinite(found.baselines["words"]["pairwise accuracy"].value)
    assert found.uncertainty is not None
    assert found.uncertainty.risk[-1] == pytest.approx(1 - found.figures["accuracy"].value)


def test_a_plain_score_orders_classes_and_the_page_shows_the_confusion(labels: Any, tmp_path: Path) -> None:
    found = evaluate("worth", lambda e: np.array([worth(x.text) for x in e]), labels)
    assert found.figures["pairwise accuracy"].value == 1
    assert found.confusion is None
    model = fit_reward_model(labels, scorer="tfidf", loss="cross-entropy", settings=FitSettings(calibrate=True)).reward
    seen = evaluate("model", abilities_of(make_reward(model)), labels.split("validation"))
    assert "model without calibration" in seen.baselines
    write_evaluation(seen, tmp_path / "r.html", "labels")
    page = (tmp_path / "r.html").read_text()
    assert "Taken for" in page
    assert "middling" in page
    other = JudgementSet("labels", tuple(LabelledText(id=str(i), text="a", label="x") for i in range(20)))
    with pytest.raises(textgym.InvalidArgumentError, match="none of the classes that model knows"):
        evaluate("model", abilities_of(make_reward(model)), other)


def test_uncertainty_that_knows_the_error_and_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0.1, 2, 4000)
    error = np.abs(rng.normal(size=4000)) * deviation
    knows, blind = (check_uncertainty(u, error, "made up") for u in (deviation, rng.random(4000)))
    assert knows.correlation.low > 0.4
    assert blind.correlation.low < 0 < blind.correlation.high
    assert (np.diff(knows.group_error) > 0).all()
    assert knows.risk[-1] == pytest.approx(error.mean()) == blind.risk[-1]
    assert knows.coverage[-1] == 1
    assert knows.risk_at(0.2) < 0.5 * knows.risk_at(1.0)
    assert (knows.best_risk <= knows.risk + 1e-12).all()
    assert knows.area < blind.area
    level = check_uncertainty(np.ones(50), np.arange(50.0))  # equal uncertainty: no order, no gain
    np.testing.assert_allclose(level.risk, 24.5)


def test_pairs_are_judged_by_the_probability_of_the_model(pairs: Any) -> None:
    options = FitSettings(epochs=12, batch_size=16, scorer=HASHED, calibrate=True)
    model = fit_reward_model(pairs, scorer="mlp", loss="bradley-terry", settings=options).reward
    found = evaluate("model", abilities_of(make_reward(model)), pairs.split("validation"))
    decided = [item for item in pairs.split("validation").items if not item.tie]
    chances = model.preference_probability(
        *([textgym.Episode(i.prompt, text(i)) for i in decided] for text in (lambda i: i.chosen, lambda i: i.rejected))
    )
    assert found.figures["log loss"].value == pytest.approx(-np.log(chances).mean(), rel=1e-5)
    assert found.figures["calibration error"].value < 0.25
    assert found.uncertainty is not None
    assert found.uncertainty.risk_at(0.5) <= found.uncertainty.risk[-1]


def test_a_learning_curve_rises_and_refits_with_the_recorded_settings(ratings: Any) -> None:
    data = replace(ratings, items=tuple(replace(item, split="test") if i % 5 == 1 else item for i, item in enumerate(ratings.items)))
    model = fit_reward_model(data, scorer="tfidf", settings=FitSettings(scorer={"penalty": 0.3}, length_debias="residual")).reward
    curve = learning_curve(model, data, [120, 12], n_draws=3)
    assert curve.sizes == (12, 120)
    assert curve.values.shape == (2, 3)
    assert curve.estimates[1].value > curve.estimates[0].value
    assert np.ptp(curve.values[0]) > 0
    assert np.isfinite(curve.values[1]).tolist() == [True, False, False]  # of all training judgements there is one draw, the model itself
    assert shown(curve.estimates[1]) == f"{curve.values[1, 0]:.3f}"
    assert (curve.estimates[0].low, curve.estimates[0].high) == (curve.values[0].min(), curve.values[0].max())
    test = data.split("test").items
    own = np.corrcoef(model.score_texts([item.text for item in test]), [item.rating for item in test])[0, 1]
    assert curve.values[1, 0] == pytest.approx(own, abs=1e-5)
    for sizes, said in (([5, 50], "from 10 to the 120"), ([50], "two sizes"), ([50, 5000], "from 10 to")):
        with pytest.raises(textgym.InvalidArgumentError, match=said):
            learning_curve(model, data, sizes)


def test_equal_predictions_have_one_calibration_error_in_whatever_order() -> None:
    truth = np.sort(np.random.default_rng(0).normal(1.0, 1.0, 500))
    curve = reliability(np.zeros(500), truth)
    assert curve.error == pytest.approx(truth.mean())
    assert curve.count.sum() == 500
    steps = np.repeat([0.0, 1.0, 2.0], [70, 30, 23])
    by_hand = [abs(b.mean() - p) for p, b in zip([0, 1, 2], np.split(steps + 0.25, [70, 100]), strict=True)]
    assert reliability(steps, steps + 0.25).error == pytest.approx(np.mean(by_hand))
