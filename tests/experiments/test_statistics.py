"""Statistics against closed forms."""

import numpy as np

from textgym.experiments.evaluate import distinct
from textgym.experiments.statistics import difference, iqm, iqm_interval, probability_of_improvement


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])) == np.mean([2.0, 3.0, 4.0, 5.0])


def test_difference_is_paired_and_excludes_zero_only_when_it_should():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 200))
    assert not difference(scores, scores + rng.normal(scale=0.5, size=scores.shape)).excludes_zero
    gain = difference(scores + 0.3, scores)
    assert abs(gain.value - 0.3) < 1e-9
    assert gain.excludes_zero


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(8, 1)) * 0.5 + rng.normal(size=(1, 60)) + rng.normal(size=(8, 60))
        interval = iqm_interval(scores)
        hits += interval.low <= 0 <= interval.high
    assert hits >= 32


def test_probability_of_improvement():
    low, high = np.zeros((2, 10)), np.ones((2, 10))
    assert probability_of_improvement(high, low).value == 1.0
    assert probability_of_improvement(low, low).value == 0.5


def test_one_seed_gives_an_interval_over_prompts():
    interval = iqm_interval(np.random.default_rng(0).normal(size=(1, 50)))
    assert interval.low < interval.value < interval.high


def test_distinct():
    assert distinct(["a b a", "a b"], 1) == 2 / 5
    assert distinct(["a b a", "a b"], 2) == 2 / 3
    assert distinct([""], 1) == 0.0
