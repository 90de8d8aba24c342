"""Distillation: targets are the announced mean, invented texts carry the teacher's scores, and held-out judgements stay as people made them."""

import numpy as np
import pytest
from click.testing import CliRunner

import textgym
from textgym.cli.main import cli
from textgym.reward_modeling.data.invented_texts import invented_texts, recombined_texts, span_texts
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.writing import write_judgements
from textgym.reward_modeling.evaluation.learning_curve import refitted
from textgym.reward_modeling.fitting.distillation import Distillation, distilled
from textgym.reward_modeling.fitting.ensemble_fit import EnsembleSettings, fit_reward_ensemble
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.models.fitted_reward import FittedReward

from .conftest import made_up_texts, worth


@pytest.fixture(scope="module")
def teacher(ratings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "reward"
    fit_reward_model(ratings, folder, scorer="tfidf")
    return FittedReward(str(folder)), str(folder)


def test_targets_are_the_mean_and_invented_texts_are_the_teachers(ratings, teacher):
    reward, folder = teacher
    train = ratings.split("train")
    found, version = distilled(train, Distillation(teacher=folder, share=0.25, invented=12), seed=3)
    assert version == reward.version
    scores = reward.score_texts([item.text for item in train.items])
    expected = [0.75 * item.rating + 0.25 * score for item, score in zip(train.items, scores, strict=True)]
    np.testing.assert_allclose([item.rating for item in found.items[: len(train)]], expected, atol=1e-12)
    new = found.items[len(train) :]
    assert len(new) == 12
    assert [item.rating for item in new] == reward.score_texts([item.text for item in new]).tolist()
    assert distilled(train, Distillation(teacher=folder, share=0.25, invented=12), seed=3)[0] == found
    alone, _ = distilled(train, Distillation(teacher=folder, share=0.0, invented=2))
    assert alone.items[: len(train)] == train.items


def test_a_student_of_few_judgements_gains_from_a_teacher(teacher):
    few = [RatedText(id=str(i), text=t, rating=float(worth(t)), split="train") for i, t in enumerate(made_up_texts(12, 21))]
    held_out = [RatedText(id=f"v{i}", text=t, rating=float(worth(t)), split="validation") for i, t in enumerate(made_up_texts(40, 22))]
    judgements = JudgementSet("ratings", (*few, *held_out), low=-4, high=4)
    plain = fit_reward_model(judgements, scorer="tfidf").best["pearson"]
    distillation = Distillation(teacher=teacher[1], invented=300, kinds=("recombined",))
    result = fit_reward_model(judgements, scorer="tfidf", settings=FitSettings(distillation=distillation))
    assert result.best["pearson"] > plain + 0.02
    described = result.reward.description["judgements"]
    assert (described["train"], described["validation"], described["teacher_version"]) == (12, 40, teacher[0].version)


def test_recorded_settings_come_back_whole_and_a_distilled_model_can_be_refitted(ratings, teacher, tmp_path):
    settings = FitSettings(
        distillation=Distillation(teacher=teacher[1], invented=5, kinds=("spans", "recombined")), scorer={"penalty": 3.0}
    )
    fit_reward_model(ratings, tmp_path / "student", scorer="tfidf", settings=settings)
    student = FittedReward(str(tmp_path / "student"))
    assert FitSettings.read(student.description["fit"]) == settings
    again = refitted(student, ratings)
    assert again.score_texts(["wonderful film", "awful river"]).tolist() == student.score_texts(["wonderful film", "awful river"]).tolist()


def test_an_ensemble_teaches_too(ratings, tmp_path):
    ensemble = fit_reward_ensemble(ratings, tmp_path / "e", ensemble=EnsembleSettings(members=2)).reward
    train = ratings.split("train")
    found, version = distilled(train, Distillation(teacher=str(tmp_path / "e"), share=1.0))
    assert version == ensemble.version
    np.testing.assert_allclose([item.rating for item in found.items], ensemble.score_texts([item.text for item in train.items]), atol=1e-6)


def test_recombined_texts_join_beginnings_and_ends():
    texts = ["one two, three four.", "five six but seven eight"]
    found = recombined_texts(texts, 200, np.random.default_rng(0))
    words = {word for text in texts for word in text.split()}
    assert len(found) == 200
    assert all(set(text.split()) <= words for text in found)
    assert "one two, but seven eight" in found
    assert "five six three four." in found


def test_invented_texts_are_mixed_as_announced():
    texts, kinds = ["A fine film.", "dull plot, sadly", "  "], ("sampled", "recombined", "spans")
    found = invented_texts(texts, 7, kinds, seed=1)
    assert len(found) == 7
    assert all(text.startswith(("A", "dull")) and text.strip() for text in found[:4])
    assert all(text in f"{texts[0]} {texts[1]}" and len(text.split()) >= 2 for text in found[4:])
    assert found == invented_texts(texts, 7, kinds, seed=1)
    assert invented_texts([], 0) == []
    with pytest.raises(textgym.InvalidArgumentError, match="no text to invent"):
        invented_texts([" "], 1)
    for wrong in ((), ("spans", "dreamt")):
        with pytest.raises(textgym.InvalidArgumentError, match="kinds must be some of spans, recombined, sampled"):
            invented_texts(["a b"], 1, wrong)


def test_spans_are_runs_of_words_of_every_place():
    text = " ".join(map(str, range(14)))
    found = span_texts([text, "one"], 2000, np.random.default_rng(0))
    assert all(span == "one" or (f" {span} " in f" {text} " and 2 <= len(span.split()) <= 10) for span in found)
    long = [span.split() for span in found if span != "one"]
    assert {len(words) for words in long} == set(range(2, 11))
    assert {words[0] for words in long} >= {"0", "4", "12"}
    assert {words[-1] for words in long} >= {"1", "13"}


@pytest.mark.parametrize(
    ("wrong", "field"), [({"share": 1.5}, "share"), ({"share": float("nan")}, "share"), ({"invented": -1}, "invented")]
)
def test_wrong_settings_are_refused(wrong, field):
    with pytest.raises(textgym.InvalidArgumentError, match=f"^{field} must be"):
        Distillation(teacher="t", **wrong)


def test_other_judgements_and_other_scales_are_refused(pairs, ratings, teacher):
    with pytest.raises(textgym.InvalidArgumentError, match="the judgements are pairs"):
        distilled(pairs, Distillation(teacher=teacher[1]))
    other = JudgementSet("ratings", ratings.items, low=-5, high=5)
    with pytest.raises(textgym.InvalidArgumentError, match=r"from -4\.\.4, the ratings from -5\.\.5"):
        distilled(other, Distillation(teacher=teacher[1]))


def test_the_command_line(ratings, teacher, tmp_path):
    path = str(tmp_path / "ratings.jsonl")
    write_judgements(ratings, path)
    arguments = ["reward", "fit", path, "--scorer", "compact", "--epochs", "2", "--out", str(tmp_path / "r"), "--invented", "8"]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code != 0
    assert "--teacher" in refused.output
    result = CliRunner().invoke(cli, [*arguments, "--teacher", teacher[1]])
    assert result.exit_code == 0, result.output
    assert np.isfinite(textgym.make_reward(str(tmp_path / "r")).score([textgym.Episode("", "lovely film")])).all()
