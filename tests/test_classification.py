"""Figures of classification against scikit-learn and by hand; they arrive in training logs, evaluations and results."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

import textgym
from textgym.classification import answer_figures, classification
from textgym.experiments.train import TrainConfig, train


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_macro_figures_are_scikit_learns(n_classes):
    rng = np.random.default_rng(n_classes)
    for n in (1, 2, 7, 100):
        predicted, right = rng.integers(n_classes, size=n), rng.integers(n_classes, size=n)
        found = classification(predicted, right, n_classes)
        theirs = precision_recall_fscore_support(right, predicted, average="macro", zero_division=0.0)
        assert [found["precision"], found["recall"], found["f1"]] == pytest.approx(theirs[:3])
        assert found["accuracy"] == pytest.approx(accuracy_score(right, predicted))


def test_answers_by_hand():
    found = answer_figures(("bad", "good"), [" good", "good", " bad", "", " great"], ["good", "bad", "bad", "good", "good"])
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["majority"] == pytest.approx(3 / 5)
    assert (found["precision_good"], found["recall_good"]) == pytest.approx((1 / 2, 1 / 3))
    assert (found["precision_bad"], found["recall_bad"]) == pytest.approx((1, 1 / 2))
    assert found["f1"] == pytest.approx((2 / 5 + 2 / 3) / 2)


def test_labels_and_references_must_agree():
    with pytest.raises(textgym.InvalidArgumentError, match="first reference is 'c': the first reference must be the right label"):
        textgym.Task("X-v0", {"train": [textgym.Prompt("a", (" c",))]}, "copy-token", 1, labels=("a", "b"))
    with pytest.raises(textgym.InvalidArgumentError, match="first reference is ''"):
        textgym.Task("X-v0", {"train": ["a"]}, "copy-token", 1, labels=("a", "b"))


def test_training_logs_and_results_have_the_figures(tmp_path):
    settings = {"n_envs": 8, "device": "cpu"}
    run = TrainConfig("ReviewClassification", "reinforce", 16, 0, settings, 1, validation_prompts=8, test_prompts=8, tensorboard=False)
    result = train(run, tmp_path / "run")
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        # the reward is 1 or -1, so it says the accuracy too
        assert float(row["rollout/accuracy"]) == pytest.approx((1 + float(row["rollout/task_reward"])) / 2)
        assert {"rollout/precision", "rollout/recall", "rollout/f1"} <= set(row)
    for point in json.loads((tmp_path / "run" / "evaluations.json").read_text()):
        assert point["accuracy"] == pytest.approx((1 + point["reward"]) / 2)
        assert {"precision", "recall", "f1", "majority", "f1_excellent", "f1_poor"} <= set(point)
    assert result["accuracy"] == np.mean(result["correct"]) == np.mean([r == 1 for r in result["rewards"]])
