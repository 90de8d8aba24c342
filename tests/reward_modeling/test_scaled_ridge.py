"""Scaled ridge: the normal equations hold, a row is predicted without itself, and features that tell much are scaled up."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from textgym.reward_modeling.scorers.scaled_ridge import FLOOR, cross_fitted, scales, solve


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    dense = rng.random((60, 30)) * (rng.random((60, 30)) < 0.3)
    targets = dense[:, :2] * 3 + rng.normal(size=(60, 2)) * 0.1
    return csr_array(dense), targets - targets.mean(0)


def test_the_weights_solve_the_penalised_normal_equations(problem):
    rows, targets = problem
    scale = scales(rows, targets, (10, 20))
    dense = rows.toarray() * scale
    centred = dense - dense.mean(0)
    expected = np.linalg.solve(centred.T @ centred + 0.5 * np.eye(30), centred.T @ targets)
    weights, intercepts = solve(rows, targets + 5, 0.5, (10, 20))
    np.testing.assert_allclose(weights, scale[:, None] * expected, atol=1e-3)
    np.testing.assert_allclose(intercepts, 5 - dense.mean(0) @ expected, atol=1e-3)


def test_scales_grow_with_the_deviation_and_have_mean_square_one_in_each_block():
    rows = csr_array(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    targets = np.array([[3.0], [2.0], [-2.0], [-3.0]])
    found = scales(rows, targets, (2, 1))
    told, silent = (5 / 3 / np.sqrt(6.5) + FLOOR, 1 / 3 / np.sqrt(6.5) + FLOOR)
    assert found[0] / found[1] == pytest.approx(np.sqrt(told / silent))
    assert np.mean(found[:2] ** 2) == pytest.approx(1)
    assert found[2] == pytest.approx(1)
    np.testing.assert_allclose(scales(rows, np.zeros((4, 1)), (3,)), 1)


def test_what_is_said_of_a_row_does_not_depend_on_its_own_target(problem):
    rows, targets = problem
    before = cross_fitted(rows, targets, 0.5, (30,), np.random.default_rng(1))
    changed = targets.copy()
    changed[7] += 100
    after = cross_fitted(rows, changed, 0.5, (30,), np.random.default_rng(1))
    np.testing.assert_array_equal(before[7], after[7])
    assert np.abs(before - after).max() > 0.1
    assert np.corrcoef(before[:, 0], targets[:, 0])[0, 1] > 0.9


def test_a_text_on_many_rows_does_not_tell_of_itself():
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in range(80)]
    dense, worth = rng.random((80, 400)) * (rng.random((80, 400)) < 0.1), rng.normal(size=(80, 1))  # features say nothing of the targets
    drawn = rng.integers(80, size=400)
    found = {}
    for name, told in (("by row", None), ("by text", [texts[i] for i in drawn])):
        said = cross_fitted(csr_array(dense[drawn]), worth[drawn] - worth[drawn].mean(), 0.5, (400,), np.random.default_rng(1), told)
        found[name] = np.corrcoef(said[:, 0], worth[drawn, 0])[0, 1]
    assert found["by row"] > 0.8  # what the leak looks like
    assert abs(found["by text"]) < 0.3


def test_different_texts_are_left_out_as_rows_are(problem):
    rows, targets = problem
    plain = cross_fitted(rows, targets, 0.5, (30,), np.random.default_rng(1))
    np.testing.assert_array_equal(plain, cross_fitted(rows, targets, 0.5, (30,), np.random.default_rng(1), [str(i) for i in range(60)]))
