"""Evaluations say what brute force says, and know people's own limits."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textgym
from textgym.reward_modeling.evaluation import evaluate, human_ceiling
from textgym.reward_modeling.evaluation_report import write_evaluation
from textgym.reward_modeling.judgements import ExpertText, JudgementSet, PreferencePair, RatedText


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


def test_preferences_count_what_was_preferred_and_ties_are_left_out() -> None:
    pairs = [
        PreferencePair(id=str(i), chosen=f"{c} x", rejected=f"{r} y") for i, (c, r) in enumerate([(2, 1)] * 9 + [(1, 2)] * 3 + [(1, 1)] * 2)
    ]
    tie = PreferencePair(id="tie", chosen="0 a", rejected="9 b", tie=True)
    found = evaluate("number", number, JudgementSet("pairs", (*pairs, tie)))
    assert found.n == 14
    assert found.figures["pairwise accuracy"].value == pytest.approx((9 + 2 * 0.5) / 14)
    assert found.figures["log loss"].value == pytest.approx((9 * np.log1p(np.exp(-1)) + 3 * np.log1p(np.exp(1)) + 2 * np.log(2)) / 14)


def test_people_set_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    raters = truth[:, None] + rng.normal(size=(3000, 8))  # reliability of one rater 1/2, of the mean of eight 8/9
    found = human_ceiling([tuple(r) for r in raters])
    assert found["split-half"] == pytest.approx(8 / 9, abs=0.01)
    assert found["one human"] == pytest.approx(1 / np.sqrt(2 * (1 + 1 / 7)), abs=0.015)
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
