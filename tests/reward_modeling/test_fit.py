"""Every scorer fits by every loss that suits it; the folder of a fitted model gives back the same scores, or says what is wrong with it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.sparse import vstack

import textgym
from tests.preloaded import textgym_command
from textgym.cli.main import cli
from textgym.reward_modeling.data.judgement_source import load_judgements, sample
from textgym.reward_modeling.data.writing import write_judgements
from textgym.reward_modeling.fitting.ensemble_fit import fit_reward_ensemble
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model, train_and_validation
from textgym.reward_modeling.metrics import correlation
from textgym.reward_modeling.models.fitted_reward import FittedReward, write_history
from textgym.reward_modeling.objectives import OBJECTIVES
from textgym.reward_modeling.scorers import SCORERS
from textgym.reward_modeling.scorers.tfidf import TfIdf

from .conftest import made_up_texts, worth

HASHED = {"features": "hashed", "size": 256}
TEXTS = [*made_up_texts(40, 9), "", "🙂 naïve", "wonderful " * 400]
EPISODES = [textgym.Episode(text[: len(text) // 2], text[len(text) // 2 :]) for text in TEXTS]


def settings(epochs=3, **more):
    return FitSettings(epochs=epochs, **more)


def data_for(loss, request):
    return request.getfixturevalue(OBJECTIVES[loss].kind)


@pytest.mark.parametrize(
    ("scorer", "options", "least"),
    [
        ("tfidf", {}, 0.9),
        ("tfidf", {"learner": "svm"}, 0.9),
        ("compact", {"size": 8, "filters": 8}, 0.8),
        ("mlp", {**HASHED, "dropout": 0.0}, 0.8),
        ("mlp", {"features": "lm"}, 0.5),
        ("lm-linear", {}, 0.5),
        ("embedding", {}, 0.5),
        ("transformer", {"model": "reviews", "dtype": "bfloat16"}, 0.8),
        ("transformer", {"model": "reviews", "lora_rank": 4}, 0.4),
        ("transformer", {"model": "reviews", "frozen_layers": 2}, 0.6),
    ],
)
def test_every_scorer_learns_saves_and_loads(scorer, options, least, ratings, tmp_path):
    epochs = {"compact": 8, "mlp": 15, "lm-linear": 15, "embedding": 30, "transformer": 4}.get(scorer)
    steps = {"batch_size": 16, "learning_rate": 3e-3 if options.get("lora_rank") else None} if epochs else {}
    result = fit_reward_model(ratings, tmp_path / "reward", scorer=scorer, settings=settings(epochs, scorer=options, **steps))
    assert result.best["pearson"] > least, result.history
    assert (result.reward.low, result.reward.high) == (-4, 4)
    reward = textgym.make_reward(str(tmp_path / "reward"))
    scores = reward.score(EPISODES)
    assert scores.shape == (len(EPISODES),)
    assert np.all((scores >= -4) & (scores <= 4))
    np.testing.assert_array_equal(scores, result.reward.score(EPISODES))
    np.testing.assert_array_equal(scores, reward.score(EPISODES))
    alone = [reward.score([episode])[0] for episode in EPISODES]
    np.testing.assert_allclose(alone, scores, rtol=0, atol=1e-5)
    assert not [path for path in (tmp_path / "reward").rglob("*") if path.suffix in (".pkl", ".pt", ".bin", ".joblib")]


@pytest.mark.parametrize("loss", sorted(set(OBJECTIVES) - {"discrimination"}))  # which is fitted by another command, tested with it
def test_every_loss_learns(loss, request, tmp_path):
    result = fit_reward_model(
        data_for(loss, request),
        tmp_path / "reward",
        scorer="mlp",
        loss=loss,
        settings=settings(15, scorer={**HASHED, "dropout": 0.0}, batch_size=16),
    )
    watched = next(name for name in result.best if name not in ("epoch", "seconds", "train_loss"))
    assert result.best[watched] > 0.75, result.history
    reward = textgym.make_reward(str(tmp_path / "reward"))
    texts = made_up_texts(60, 11)
    scores = reward.score([textgym.Episode("", text) for text in texts])
    assert np.corrcoef(scores, [worth(text) for text in texts])[0, 1] > 0.75
    assert np.all((scores >= result.reward.low) & (scores <= result.reward.high))


@pytest.mark.parametrize("learner", ["ridge", "svm"])
@pytest.mark.parametrize("loss", ["multi-task", "cross-entropy", "bradley-terry"])
def test_tfidf_solves_classes_and_pairs_too(learner, loss, request, tmp_path):
    options = FitSettings(scorer={"learner": learner, "penalty": 0.1})
    result = fit_reward_model(data_for(loss, request), tmp_path / "reward", scorer="tfidf", loss=loss, settings=options)
    assert next(value for name, value in result.best.items() if name in ("f1", "accuracy", "pearson")) > 0.7
    reward = textgym.make_reward(str(tmp_path / "reward"))
    np.testing.assert_array_equal(reward.score(EPISODES), result.reward.score(EPISODES))


@pytest.mark.parametrize("learner", ["ridge", "svm"])
def test_tfidf_minimises_the_loss_of_pairs_with_ties_and_margins(learner, pairs):
    items = [replace(item, margin=None if item.tie else 0.1 * (i % 3)) for i, item in enumerate(pairs.split("train").items)]
    assert 10 < sum(item.tie for item in items) < len(items) - 10
    objective = OBJECTIVES["bradley-terry"].for_judgements(pairs, margin_scale=2.0)
    scorer = TfIdf(1, learner=learner, penalty=0.5)
    scorer.solve(objective.texts(items), objective, items, seed=0)
    features = vstack(list(scorer.prepare(objective.texts(items)))).toarray()
    difference = features[: len(items)] - features[len(items) :]
    won = np.array([0.5 if item.tie else 1.0 for item in items])
    margin = np.array([2 * (item.margin or 0.0) for item in items])

    def loss(weight):
        gap = difference @ weight
        for_each = [1 - e if learner == "svm" else -e for e in (gap - margin, -gap - margin)]
        first, second = (np.maximum(0, x) ** 2 if learner == "svm" else np.logaddexp(0, x) for x in for_each)
        return won @ first + (1 - won) @ second + 0.25 * weight @ weight

    def slope(weight, direction):
        return (loss(weight + 1e-3 * direction) - loss(weight - 1e-3 * direction)) / 2e-3

    found, rng = scorer.weight[:, 0].double().numpy(), np.random.default_rng(0)
    for _ in range(10):  # the loss is convex: where it is level in all directions that the pairs know, it is least
        direction = difference.T @ rng.normal(size=len(items))
        direction /= np.linalg.norm(direction)
        assert abs(slope(found, direction)) < 2e-3
    assert slope(np.zeros_like(found), difference.T @ won / np.linalg.norm(difference.T @ won)) < -10
    assert scorer.bias[0] == 0  # an intercept would prefer whatever stands first


def test_ties_by_rao_and_kupper(pairs):
    options = settings(8, scorer={**HASHED, "dropout": 0.0}, loss={"ties": "rao-kupper"}, batch_size=16)
    assert fit_reward_model(pairs, scorer="mlp", loss="bradley-terry", settings=options).best["accuracy"] > 0.8


def test_after_rao_and_kupper_a_preference_is_the_winners_share_of_what_is_no_tie(pairs):
    options = FitSettings(epochs=2, scorer=HASHED, loss={"ties": "rao-kupper"}, calibrate=True)
    reward = fit_reward_model(pairs, scorer="mlp", loss="bradley-terry", settings=options).reward
    plain = reward.with_parts(calibration=None)
    with torch.no_grad():
        threshold = float(torch.nn.functional.softplus(reward.objective.tie_parameter))
        latent = plain.outputs([episode.text for episode in EPISODES])[:, 0].double()
    win, loss = (torch.sigmoid(sign * (latent - latent.flip(0)) - threshold) for sign in (1, -1))
    np.testing.assert_allclose(plain.preference_probability(EPISODES, EPISODES[::-1]), win / (win + loss), atol=1e-7)
    tempered = torch.sigmoid((win / loss).log() / reward.calibration.temperature)
    np.testing.assert_allclose(reward.preference_probability(EPISODES, EPISODES[::-1]), tempered, atol=1e-7)


def test_margins_that_cannot_be_used_are_refused_with_the_option_that_leaves_them_out(pairs):
    far = replace(pairs, items=tuple(replace(item, margin=0.0 if item.tie else 1.0) for item in pairs.items))
    ties = {"ties": "rao-kupper"}
    with pytest.raises(textgym.InvalidArgumentError, match="--set-loss margins=false"):
        fit_reward_model(far, scorer="mlp", loss="bradley-terry", settings=FitSettings(loss=ties))
    settings = FitSettings(epochs=1, scorer=HASHED, loss={**ties, "margins": False})
    fit_reward_model(far, scorer="mlp", loss="bradley-terry", settings=settings)


def test_heteroscedastic_finds_where_raters_disagree(ratings):
    options = settings(40, scorer={**HASHED, "dropout": 0.0}, batch_size=16, patience=40)
    reward = fit_reward_model(ratings, scorer="mlp", loss="heteroscedastic", settings=options).reward
    deviation = reward.rater_deviation([textgym.Episode("", t) for t in ("lovely film film", "lovely river river")])
    assert deviation[0] > 1.3 * deviation[1]


def test_the_same_seed_gives_the_same_model(ratings):
    options = settings(2, scorer=HASHED)
    first, second, other = (
        fit_reward_model(ratings, scorer="mlp", settings=replace(options, seed=seed)).reward.score(EPISODES) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3


def test_the_best_epoch_is_kept_and_fitting_stops_early(ratings):
    options = settings(60, scorer={**HASHED, "dropout": 0.0}, batch_size=16, patience=2, learning_rate=0.05)
    result = fit_reward_model(ratings, scorer="mlp", settings=options)
    figures = [entry["pearson"] for entry in result.history]
    assert len(figures) < 60
    assert int(np.argmax(figures)) == len(figures) - 3
    held_out = ratings.split("validation").items
    scores = result.reward.score_texts([item.text for item in held_out])
    assert np.corrcoef(scores, [item.rating for item in held_out])[0, 1] == pytest.approx(max(figures), abs=1e-6)


def test_an_interrupted_fit_keeps_what_it_reported(ratings, tmp_path):
    reported = []

    def report(entry):
        reported.append(entry)
        if len(reported) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_reward_model(ratings, tmp_path / "r", scorer="mlp", settings=settings(9, scorer=HASHED), report=report)
    history = json.loads((tmp_path / "r" / "history.json").read_text())
    assert history == {"finished": False, "epochs": reported}
    best = max(entry["pearson"] for entry in reported)
    reward = textgym.make_reward(str(tmp_path / "r")).terms[0].model
    assert reward.description["metrics"]["pearson"] == best
    held_out = ratings.split("validation").items
    assert np.corrcoef(reward.score_texts([i.text for i in held_out]), [i.rating for i in held_out])[0, 1] == pytest.approx(best, abs=1e-6)


def test_pre_training_and_the_auxiliary_term_run(ratings):
    from textgym.reward_modeling.fitting.contrastive import pretrain

    texts = [item.text for item in ratings.items]
    for method in ("simcse", "moco"):
        scorer = SCORERS["transformer"](1, model="reviews", max_tokens=16)
        losses = pretrain(scorer, texts, method=method, steps=12, batch_size=32, learning_rate=1e-3, temperature=0.1)
        assert np.mean(losses[-3:]) < np.mean(losses[:3]) or method == "moco"  # MoCo's loss grows with its queue
        options = settings(1, contrastive=method, batch_size=32)
        result = fit_reward_model(ratings, settings=options, scorer="transformer", prepared_scorer=scorer)
        assert np.isfinite(result.best["train_loss"])


def test_a_fit_can_begin_with_pre_training(ratings):
    few, steps = replace(ratings, items=ratings.items[:40]), []
    base = {"epochs": 1, "batch_size": 16, "scorer": {"model": "reviews", "max_tokens": 8}}
    for pretrain in ("", "simcse"):
        result = fit_reward_model(
            few,
            scorer="transformer",
            settings=FitSettings(pretrain=pretrain, pretrain_steps=3, **base),
            show=lambda *told: steps.append(told[2]),
        )
        assert any("contrastive loss" in note for note in steps) == bool(pretrain)
    assert FitSettings.read(result.reward.description["fit"]).pretrain == "simcse"
    with pytest.raises(textgym.InvalidArgumentError, match="takes no pretrain"):
        fit_reward_model(few, scorer="tfidf", settings=FitSettings(pretrain="moco"))


def test_frozen_layers_stay_as_they_were_and_know_no_dropout(ratings):
    scorer = SCORERS["transformer"](1, model="reviews", max_tokens=16, frozen_layers=1)
    before = {name: value.clone() for name, value in scorer.named_parameters()}
    fit_reward_model(ratings, settings=settings(1, batch_size=16), scorer="transformer", prepared_scorer=scorer)
    moved = {name for name, value in scorer.named_parameters() if not torch.equal(value, before[name])}
    assert any(".h.1." in name for name in moved)
    assert not [name for name in moved if (name.startswith("encoder.") and ".h.0." in name) or ".wte." in name or ".wpe." in name]
    scorer.train()
    assert scorer.encoder.h[1].training
    assert not scorer.encoder.h[0].training


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"frozen_layers": 99}, "must be below"),
        ({"frozen_layers": 1, "lora_rank": 2}, "0 with LoRA"),
        ({"frozen_layers": -1}, "at least 0"),
    ],
)
def test_impossible_frozen_layers_are_refused(options, line):
    with pytest.raises(textgym.InvalidArgumentError, match=line):
        SCORERS["transformer"](1, model="reviews", **options)


def test_a_frozen_scorer_has_nothing_to_contrast(ratings):
    with pytest.raises(textgym.InvalidArgumentError, match="has no encoder that learns"):
        fit_reward_model(ratings, scorer="mlp", settings=settings(1, scorer=HASHED, contrastive="simcse"))


# --- what is wrong, in one line ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(ratings, tmp_path):
    fit_reward_model(ratings, tmp_path / "r", scorer="tfidf")
    return tmp_path / "r"


def change(path, by):
    data = bytearray(path.read_bytes())
    data[by] ^= 1
    path.write_bytes(bytes(data))


def described(folder, **changes):
    """Change a description and its hash, as another version or a forger would."""
    from textgym.reward_modeling.reward_folder import _self_hash

    path = folder / "reward_model.json"
    found = json.loads(path.read_text())
    found.pop("sha256")
    found.update(changes)
    path.write_text(json.dumps({**found, "sha256": _self_hash(found)}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: change(f / "weights.safetensors", -3), "weights.safetensors was changed after it was saved"),
        (lambda f: change(f / "features.json", 5), "features.json was changed after it was saved"),
        (lambda f: (f / "features.json").unlink(), "features.json is missing"),
        (lambda f: (f / "reward_model.json").write_text("{"), "reward_model.json is not JSON"),
        (lambda f: (f / "reward_model.json").write_text("[]"), "has format None, this textgym reads 1"),
        (
            lambda f: (f / "reward_model.json").write_text((f / "reward_model.json").read_text().replace('"high": 4.0', '"high": 9.0')),
            "reward_model.json was changed after it was saved",
        ),
        (lambda f: described(f, format=2), "has format 2, this textgym reads 1"),
        (lambda f: described(f, versions={"scikit-learn": "0.1.0"}), "was fitted with scikit-learn 0.1.0, installed is"),
        (lambda f: described(f, versions={"no-such-package": "1.0"}), "needs no-such-package"),
        (lambda f: described(f, objective="guess"), "which this textgym does not know"),
        (lambda f: described(f, scorer="oracle"), "unknown scorer 'oracle'"),
    ],
)
def test_a_folder_that_was_changed_is_refused(folder, harm, said):
    harm(folder)
    with pytest.raises(textgym.TextgymError, match=said) as raised:
        textgym.make_reward(str(folder))
    assert "\n" not in str(raised.value)


def test_versions_may_be_overlooked(folder):
    described(folder, versions={"scikit-learn": "0.1.0"})
    assert textgym.make_reward(str(folder), check_versions=False).score(EPISODES).shape == (len(EPISODES),)


def test_a_changed_base_model_is_noticed(ratings, tmp_path):
    import shutil

    from textgym.lm.source import resolve_model

    base = tmp_path / "base"
    shutil.copytree(resolve_model("reviews"), base)
    fit_reward_model(ratings, tmp_path / "r", scorer="lm-linear", settings=settings(1, scorer={"model": str(base)}))
    change(base / "model.safetensors", -3)
    from textgym.reward_modeling.scorers import features

    features._source_hash.cache_clear()
    with pytest.raises(textgym.InvalidArgumentError, match="whose files have changed since"):
        textgym.make_reward(str(tmp_path / "r"))


def test_a_folder_of_something_else_is_never_replaced(ratings, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(textgym.InvalidArgumentError, match="holds no reward model; choose another folder"):
        fit_reward_model(ratings, tmp_path / "thesis", scorer="tfidf")
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_what_somebody_laid_beside_a_model_is_not_lost(ratings, tmp_path):
    fit_reward_model(ratings, tmp_path / "r", scorer="tfidf")
    fit_reward_model(
        ratings, tmp_path / "r", scorer="mlp", settings=settings(2, scorer=HASHED)
    )  # a model alone may be replaced, epoch by epoch
    (tmp_path / "r" / "notes.txt").write_text("what I found out")
    with pytest.raises(textgym.InvalidArgumentError, match=r"notes\.txt' is no part of the reward model"):
        fit_reward_model(ratings, tmp_path / "r", scorer="tfidf")
    assert (tmp_path / "r" / "notes.txt").exists()
    assert "mlp" in (tmp_path / "r" / "reward_model.json").read_text()


def test_models_that_score_differently_have_different_versions(ratings, tmp_path):
    def fitted(**options):
        return fit_reward_model(ratings, scorer="tfidf", settings=FitSettings(**options)).reward

    plain, other, calibrated = fitted(), fitted(scorer={"penalty": 9.0}), fitted(calibrate=True)
    versions = [plain.version, other.version, calibrated.version]
    assert len(set(versions)) == 3
    assert fitted().version == plain.version
    assert calibrated.with_parts(calibration=None).version == plain.version
    calibrated.save(tmp_path / "r")
    assert FittedReward(str(tmp_path / "r")).version == calibrated.version
    assert FittedReward(str(tmp_path / "r")).with_parts(calibration=None).version != calibrated.version


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scorer": "oracle"}, "unknown scorer 'oracle'"),
        ({"loss": "squared-eror"}, "did you mean 'squared-error'"),
        ({"loss": "ordinal"}, "is for labels, the judgements are ratings"),
        ({"scorer": "tfidf", "loss": "heteroscedastic"}, "does not allow"),
        ({"scorer": "tfidf", "settings": FitSettings(scorer={"learner": "guess"})}, 'learner must be "ridge" or "svm"'),
        ({"scorer": "tfidf", "settings": FitSettings(scorer={"lerner": "svm"})}, "did you mean 'learner'"),
        ({"scorer": "mlp", "settings": FitSettings(scorer={"features": "tea leaves"})}, "features must be"),
        ({"loss": "squared-error", "settings": FitSettings(loss={"ties": "x"})}, "has no option 'ties'"),
        ({"scorer": "tfidf", "settings": FitSettings(scorer={"penalty": "abc"})}, "penalty must be a number, got 'abc'"),
        ({"scorer": "mlp", "settings": FitSettings(scorer={"dropout": None})}, "dropout must be a number, got None"),
        ({"scorer": "mlp", "device": "nonsense"}, "device 'nonsense' cannot be used"),
        ({"scorer": "tfidf", "settings": FitSettings(epochs=30)}, "solved at once and takes no epochs"),
        ({"scorer": "tfidf", "settings": FitSettings(contrastive="simcse", learning_rate=0.1)}, "takes no learning_rate, contrastive"),
    ],
)
def test_bad_options_are_one_clear_line(ratings, options, said):
    with pytest.raises(textgym.TextgymError, match=said):
        fit_reward_model(ratings, **options)


def test_no_text_is_longer_than_the_tokenizer_says(tmp_path):
    import shutil

    from textgym.lm.source import resolve_model
    from textgym.reward_modeling.scorers.transformer import Transformer

    shutil.copytree(resolve_model("reviews"), tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 7}))
    scorer = Transformer(1, model=str(tmp_path / "base"), max_tokens=99)
    assert len(scorer.prepare(["wonderful " * 50])[0]) == scorer.max_tokens == 7


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": -1}, {"learning_rate": float("nan")}, {"contrastive": "x"}, {"patience": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(textgym.InvalidArgumentError, match=next(iter(bad))):
        FitSettings(**bad)


def test_too_few_judgements(ratings):
    with pytest.raises(textgym.InvalidArgumentError, match="at least 2 validation judgements"):
        fit_reward_model(replace(ratings, items=ratings.split("train").items), scorer="tfidf")


def test_without_a_split_a_tenth_validates(tmp_path):
    drawn = sample(load_judgements("human-ratings"), 150)
    whole = replace(drawn, items=tuple(replace(item, split="") for item in drawn.items))
    fit_reward_model(whole, tmp_path / "r", scorer="tfidf")
    used = json.loads((tmp_path / "r" / "reward_model.json").read_text())["judgements"]
    assert used["train"] + used["validation"] == len(whole)
    assert 0.04 < used["validation"] / len(whole) < 0.2


@pytest.mark.parametrize("n", [20, 200])
def test_test_judgements_are_never_trained_on(n, ratings):
    items = [replace(item, split="test" if i % 2 else "") for i, item in enumerate(ratings.items[:n])]
    train, validation = train_and_validation(replace(ratings, items=tuple(items)))
    used = {item.id for part in (train, validation) for item in part.items}
    assert used == {item.id for item in items if not item.split}
    assert min(len(train), len(validation)) >= 2
    with pytest.raises(textgym.InvalidArgumentError, match="textgym reward data FILE --split"):
        train_and_validation(replace(ratings, items=tuple(replace(item, split="test") for item in items)))


def test_a_model_that_is_no_number_is_not_saved(ratings, tmp_path):
    options = FitSettings(epochs=1, learning_rate=1e30, scorer={**HASHED, "dropout": 0.0})
    with pytest.raises(textgym.InvalidArgumentError, match="no longer finite after epoch 1: lower"):
        fit_reward_model(replace(ratings, items=ratings.items[:40]), tmp_path / "r", scorer="mlp", settings=options)
    assert not (tmp_path / "r").exists()
    assert np.isnan(correlation(np.array([1.0, np.nan]), np.array([1.0, 2.0])))


def test_a_figure_without_a_value_is_null_in_the_history(tmp_path):
    write_history(tmp_path, [{"epoch": 1, "accuracy": float("nan")}], finished=True)
    assert json.loads((tmp_path / "history.json").read_text())["epochs"] == [{"epoch": 1, "accuracy": None}]


def test_validation_pairs_that_are_all_ties_choose_no_epoch(pairs):
    tied = replace(pairs, items=tuple(replace(item, tie=True) if item.split == "validation" else item for item in pairs.items))
    with pytest.raises(textgym.InvalidArgumentError, match="all 60 validation pairs are ties"):
        fit_reward_model(tied, scorer="mlp", loss="bradley-terry", settings=settings(1, scorer=HASHED))


def test_too_few_to_calibrate_are_told_before_the_first_epoch(ratings):
    few = replace(ratings, items=(*ratings.split("train").items, *ratings.split("validation").items[:15]))
    epochs = []
    with pytest.raises(textgym.InvalidArgumentError, match="calibration needs at least 20"):
        fit_reward_model(few, scorer="tfidf", settings=FitSettings(calibrate=True), report=epochs.append)
    assert not epochs


@pytest.mark.parametrize("fit", [fit_reward_model, fit_reward_ensemble])
def test_ranks_that_nobody_declared_are_not_made_up(fit, labels):
    with pytest.raises(textgym.InvalidArgumentError, match="the field `classes`, from the lowest to the highest of bad, good, middling"):
        fit(replace(labels, classes=()), scorer="mlp", loss="ordinal", settings=settings(1, scorer=HASHED))


def test_one_class_alone_cannot_be_learnt(labels):
    one = replace(labels, items=tuple(item for item in labels.items if item.label == "good"))
    for loss in ("cross-entropy", "ordinal"):
        with pytest.raises(textgym.InvalidArgumentError, match="training judgements have the label 'good'"):
            fit_reward_model(one, scorer="tfidf", loss=loss)


def test_the_commands_tell_the_order_of_classes(labels, tmp_path):
    write_judgements(replace(labels, classes=()), tmp_path / "labels.jsonl")
    for arguments in (["fit", "--out", str(tmp_path / "r")], ["evaluate", "vader", "--split", "validation"]):
        said = CliRunner().invoke(cli, ["reward", *arguments, str(tmp_path / "labels.jsonl")], catch_exceptions=False)
        assert said.exit_code == 0, said.output
        assert "bad < good < middling" in said.output


# --- command line --------------------------------------------------------------------------------------------------------------------


def test_the_command_fits_and_the_folder_scores(tmp_path):
    out = str(tmp_path / "reward")
    arguments = ["reward", "fit", "human-ratings", "--scorer", "mlp", "--set", "features=hashed", "--loss", "heteroscedastic"]
    result = CliRunner().invoke(cli, [*arguments, "--limit", "300", "--epochs", "2", "--out", out], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.count("pearson") == 2
    assert "range -4 .. 4" in result.output
    scored = CliRunner().invoke(cli, ["reward", "score", out, "--prompt", "The movie", "--continuation", " was a delight."])
    assert scored.exit_code == 0


def test_bad_data_is_one_line(tmp_path):
    result = textgym_command("reward", "fit", "human-rating", "--out", str(tmp_path / "r"))
    assert result.returncode == 2
    assert "did you mean 'human-ratings'" in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_the_command_offers_every_scorer_and_loss():
    from textgym.cli.reward_fit import KINDS, LOSSES
    from textgym.cli.reward_fit import SCORERS as OFFERED
    from textgym.reward_modeling.data import invented_texts

    assert set(OFFERED) == set(SCORERS)
    assert set(LOSSES) == set(OBJECTIVES) - {"discrimination"}  # fitted by `textgym reward discriminate`
    assert KINDS == invented_texts.KINDS


def test_the_bundled_ratings_are_whole():
    found = load_judgements("human-ratings")
    assert (len(found), found.low, found.high, found.kind) == (17_396, -4, 4, "ratings")
    for item in found.items:
        assert not item.ratings or abs(np.mean(item.ratings) - item.rating) < 0.0051
    part = sample(found, 100)
    assert [len(part.split(name)) for name in ("train", "validation", "test")] == [100, 100, 100]
    assert len({item.source for item in part.split("test").items}) == 3


def test_momentum_and_queue_by_hand():
    from torch import nn

    from textgym.reward_modeling.fitting.contrastive import MomentumEncoder

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([2.0, 4.0]))

        def embed(self, prepared):
            return torch.tensor(prepared)[:, None] * self.weight

    fast = Line()
    slow = MomentumEncoder(fast, momentum=0.75, queue_size=3)
    with torch.no_grad():
        fast.weight.copy_(torch.tensor([6.0, 0.0]))
    slow.follow(fast)
    torch.testing.assert_close(slow.copy.weight.data, torch.tensor([0.75 * 2 + 0.25 * 6, 0.75 * 4 + 0.25 * 0]))  # 3, 3
    slow.follow(fast)
    torch.testing.assert_close(slow.copy.weight.data, torch.tensor([3.75, 2.25]))
    torch.testing.assert_close(fast.weight.data, torch.tensor([6.0, 0.0]))
    keys = slow.keys([2.0, -1.0])
    unit = torch.tensor([3.75, 2.25]) / (3.75**2 + 2.25**2) ** 0.5
    torch.testing.assert_close(keys, torch.stack([unit, -unit]))
    assert not keys.requires_grad
    slow.push(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    slow.push(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    torch.testing.assert_close(slow.queue[:, 0], torch.tensor([2.0, 3.0, 4.0]))  # the oldest fell out


def test_a_step_of_momentum_contrast_by_hand():
    from torch import nn

    from textgym.reward_modeling.fitting.contrastive import MomentumEncoder, contrastive_loss

    class Table(nn.Module):  # no dropout: the views differ by the weights alone
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))

        def embed(self, prepared):
            return self.weight[prepared]

    fast = Table()
    slow = MomentumEncoder(fast, momentum=0.5, queue_size=3)
    assert contrastive_loss(fast, [0, 1], slow, 1.0).item() == 0  # no negatives yet
    torch.testing.assert_close(slow.queue, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    with torch.no_grad():
        fast.weight[2] = torch.tensor([3.0, 1.0])
    loss = contrastive_loss(fast, [2], slow, 1.0)
    query = np.array([3.0, 1.0]) / 10**0.5
    key = np.array([2.0, 1.0]) / 5**0.5  # the copy went half of the way from (1, 1) to (3, 1)
    logits = np.array([query @ key, query[0], query[1]])  # the queue as it was before this batch
    assert loss.item() == pytest.approx(np.log(np.exp(logits).sum()) - logits[0], rel=1e-6)
    loss.backward()
    assert slow.copy.weight.grad is None
    assert fast.weight.grad[2].abs().sum() > 0
    contrastive_loss(fast, [1], slow, 1.0)
    expected = torch.tensor([[0.0, 1.0], [*key], [0.0, 1.0]], dtype=torch.float32)  # oldest first; (1, 0) fell out
    torch.testing.assert_close(slow.queue, expected)


def test_a_text_is_never_its_own_negative():
    from torch import nn

    from textgym.reward_modeling.fitting.contrastive import MomentumEncoder, contrastive_loss

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))

        def embed(self, prepared):
            return self.weight[prepared]

    table = Table()
    slow = MomentumEncoder(table, queue_size=8)
    contrastive_loss(table, [0, 1], slow, 1.0, [0, 1])
    loss = contrastive_loss(table, [0, 0, 1], slow, 1.0, [0, 0, 1])  # each of the two has one negative in the queue: the other
    assert loss.item() == pytest.approx(np.log(np.exp(1) + np.exp(0)) - 1, rel=1e-6)
    assert slow.numbers.tolist() == [0, 1, 0, 1]
    assert len(slow.queue) == 4
    twice = contrastive_loss(table, [0, 2, 0], temperature=1.0, numbers=[0, 2, 0])
    torch.testing.assert_close(twice, contrastive_loss(table, [0, 2], temperature=1.0))
