"""Statistics against closed forms."""

import numpy as np
import pytest

from textgym.experiments import statistics
from textgym.experiments.evaluate import distinct
from textgym.experiments.statistics import difference, iqm, iqm_interval, mean_interval, probability_of_improvement


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])) == np.mean([2.0, 3.0, 4.0, 5.0])


def test_difference_is_paired_and_excludes_zero_only_when_it_should():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 200))
    assert not difference(scores, scores + rng.normal(scale=0.5, size=scores.shape)).excludes_zero
    gain = difference(scores + 0.3, scores)
    assert abs(gain.value - 0.3) < 1e-9
    assert gain.excludes_zero


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("interval", [mean_interval, iqm_interval])
def test_equal_agents_are_called_different_in_five_of_a_hundred_comparisons(seeds, interval, monkeypatch):
    monkeypatch.setattr(statistics, "N_RESAMPLES", 500)
    rng = np.random.default_rng(seeds)
    n, wrong = 400 if interval is mean_interval else 120, 0
    for _ in range(n):  # the gap of two agents: seeds and prompts on which they differ, single texts
        gap = rng.normal(size=(seeds, 1)) * 0.35 + rng.normal(size=(1, 96)) * 0.3 + rng.normal(size=(seeds, 96)) * 1.4
        wrong += interval(gap).excludes_zero
    assert 0.005 * n < wrong < 0.08 * n


def test_intervals_of_many_seeds_are_those_of_the_closed_form():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 1)) * 0.5 + rng.normal(size=(1, 300)) + 3
    found = mean_interval(scores)
    error = np.sqrt(scores.mean(1).var(ddof=1) / 40 + scores.mean(0).var(ddof=1) / 300)
    assert found.value == pytest.approx(scores.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_figures_of_samples_are_those_of_their_copies():
    from scipy.stats import trim_mean

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 7)).round(1)
    rows, columns = rng.multinomial(3, [1 / 3] * 3, size=20), rng.multinomial(7, [1 / 7] * 7, size=20)
    copies = [scores[np.repeat(np.arange(3), r)][:, np.repeat(np.arange(7), c)] for r, c in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(statistics._means(scores, rows, columns), [c.mean() for c in copies], rtol=1e-12)
    np.testing.assert_allclose(statistics._iqms(scores, rows, columns), [trim_mean(c.ravel(), 0.25) for c in copies], rtol=1e-12)


def test_probability_of_improvement():
    low, high = np.zeros((2, 10)), np.ones((2, 10))
    assert probability_of_improvement(high, low).value == 1.0
    assert probability_of_improvement(low, low).value == 0.5
    mixed = np.random.default_rng(0).normal(size=(2, 40))
    found = probability_of_improvement(mixed, mixed[::-1])
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_one_seed_gives_an_interval_over_prompts():
    interval = iqm_interval(np.random.default_rng(0).normal(size=(1, 50)))
    assert interval.low < interval.value < interval.high


def test_distinct():
    assert distinct(["a b a", "a b"], 1) == 2 / 5
    assert distinct(["a b a", "a b"], 2) == 2 / 3
    assert distinct([""], 1) == 0.0
