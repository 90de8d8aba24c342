"""Length debiasing, calibration, abstention and ensembles find what was planted, and survive their folder."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import textgym
from textgym.cli.main import cli
from textgym.reward_modeling.data.bootstrap import bootstrapped
from textgym.reward_modeling.data.judgements import JudgementSet, LabelledText, PreferencePair, RatedText
from textgym.reward_modeling.fitting.ensemble_fit import EnsembleSettings, fit_reward_ensemble
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.models.calibration import Calibration, fit_calibration, fit_temperature
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.models.length_debias import LengthDebias, log_words
from textgym.reward_modeling.objectives import BradleyTerry, CrossEntropy, Ordinal, SquaredError
from textgym.rewards.combination import combine, combined_range

from .conftest import WORTH, made_up_texts, worth

HASHED = {"features": "hashed", "size": 256, "dropout": 0.0}
TEXTS = made_up_texts(80, 31)
EPISODES = [textgym.Episode("", text) for text in TEXTS]


# --- length --------------------------------------------------------------------------------------------------------------------------


def with_length(n: int, seed: int) -> JudgementSet[RatedText]:
    """Ratings that pay for words as such: worth + 1.5 log(1 + words)."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list(WORTH), size=rng.integers(2, 25))) for _ in range(n)]
    ratings = [worth(t) + 1.5 * float(np.log1p(len(t.split()))) for t in texts]
    items = [
        RatedText(id=str(i), text=t, rating=r, split="validation" if i % 4 == 0 else "train")
        for i, (t, r) in enumerate(zip(texts, ratings, strict=True))
    ]
    return JudgementSet("ratings", tuple(items), low=-4, high=10)


@pytest.mark.parametrize(
    ("scorer", "options"),
    [
        ("tfidf", FitSettings(length_debias="residual", scorer={"penalty": 0.1})),
        ("mlp", FitSettings(length_debias="residual", epochs=20, batch_size=32, scorer=HASHED)),
        ("mlp", FitSettings(length_debias="penalty", length_coef=10.0, epochs=20, batch_size=64, scorer=HASHED)),
    ],
)
def test_a_planted_length_effect_is_taken_off(scorer: str, options: FitSettings, tmp_path: Any) -> None:
    data = with_length(400, 0)
    held_out = [item.text for item in with_length(200, 1).items]
    lengths = log_words(held_out)
    fits = [
        fit_reward_model(data, tmp_path / f"r{i}", scorer=scorer, settings=s)
        for i, s in enumerate((replace(options, length_debias=""), options))
    ]
    plain, debiased = (fit.reward.score_texts(held_out) for fit in fits)
    before, after = (abs(np.corrcoef(s, lengths)[0, 1]) for s in (plain, debiased))
    assert before > 0.4
    assert after < min(0.2, before / 2)
    truth = [worth(text) for text in held_out]
    assert np.corrcoef(debiased, truth)[0, 1] > np.corrcoef(plain, truth)[0, 1]
    np.testing.assert_array_equal(textgym.make_reward(str(tmp_path / "r1")).score([textgym.Episode("", t) for t in held_out]), debiased)


def test_the_residual_is_uncorrelated_where_it_was_fitted() -> None:
    texts = ["word " * n for n in range(1, 40)]
    outputs = torch.stack([torch.arange(39.0), torch.randn(39)], dim=1)
    debias = LengthDebias.fit(outputs, texts, slice(0, 1))
    left = debias.applied(outputs, texts)
    assert abs(np.corrcoef(left[:, 0], log_words(texts))[0, 1]) < 1e-5
    torch.testing.assert_close(left[:, 1], outputs[:, 1])
    assert LengthDebias.read(json.loads(json.dumps(debias.plain()))) == debias
    same = LengthDebias.fit(outputs[:3], ["one two"] * 3, slice(0, 1))  # one length: nothing can be said
    torch.testing.assert_close(same.applied(outputs[:3], ["one"] * 3), outputs[:3])


# --- calibration ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(6000, 3, generator=generator)
    label = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature((true * logits).log_softmax(1).double(), label) == pytest.approx(true, rel=0.06)
    names = ("a", "b", "c")
    items = [LabelledText(id=str(i), text="x", label=names[k]) for i, k in enumerate(label.tolist())]
    objective = CrossEntropy(names)
    found = fit_calibration(objective, true * logits, items)
    assert found.temperature == pytest.approx(true, rel=0.06)
    assert found.error_after < 0.03
    assert true == 1 or found.error_after < found.error_before / 3
    torch.testing.assert_close(objective.probabilities(true * logits, true), logits.softmax(1))


def test_pairs_get_a_temperature_and_a_score_that_is_a_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5000, generator=generator)
    wins = torch.rand(5000, generator=generator) < torch.sigmoid(first - second)
    chosen, rejected = torch.where(wins, first, second), torch.where(wins, second, first)
    items = [PreferencePair(id=str(i), chosen="a", rejected="b") for i in range(5000)]
    outputs = 5 * torch.cat([chosen, rejected])[:, None]
    found = fit_calibration(BradleyTerry(), outputs, items)
    assert found.temperature == pytest.approx(5, rel=0.08)
    assert found.error_after < 0.03 < found.error_before
    scores = BradleyTerry().score(outputs, found.temperature)
    torch.testing.assert_close(torch.logit(scores), outputs[:, 0] / found.temperature, rtol=1e-3, atol=1e-3)


def test_isotonic_ratings_follow_the_truth_and_keep_the_order() -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(-1, 1, 3000)
    ratings = np.clip(4 * raw**3 + rng.normal(0, 0.3, 3000), -4, 4)
    items = [RatedText(id=str(i), text="x", rating=float(r)) for i, r in enumerate(ratings)]
    found = fit_calibration(SquaredError(-4, 4, 0, 1), torch.from_numpy(raw).float()[:, None], items)
    assert found.error_after < 0.08 < found.error_before
    grid = torch.linspace(-2, 2, 101, dtype=torch.float64)
    mapped = found.applied(grid)
    assert (mapped.diff() >= 0).all()
    np.testing.assert_allclose(mapped.numpy(), np.interp(grid.numpy(), found.raw, found.calibrated), atol=1e-12)
    np.testing.assert_allclose(mapped[30:71].numpy(), 4 * grid[30:71].numpy() ** 3, atol=0.35)
    assert Calibration.read(json.loads(json.dumps(found.plain()))) == found


@pytest.mark.parametrize("loss", ["squared-error", "cross-entropy", "ordinal", "bradley-terry"])
def test_a_calibrated_model_survives_its_folder(loss: str, request: Any, tmp_path: Any) -> None:
    kind = {"squared-error": "ratings", "bradley-terry": "pairs"}.get(loss, "labels")
    options = FitSettings(epochs=3, scorer=HASHED, calibrate=True, length_debias="residual")
    model = fit_reward_model(request.getfixturevalue(kind), tmp_path / "r", scorer="mlp", loss=loss, settings=options).reward
    read = FittedReward(str(tmp_path / "r"))
    assert (read.calibration, read.length_debias) == (model.calibration, model.length_debias)
    assert read.calibration is not None
    np.testing.assert_array_equal(read.score(EPISODES), model.score(EPISODES))
    assert np.abs(read.score(EPISODES) - read.with_parts(calibration=None).score(EPISODES)).max() > 1e-4
    assert ((read.score(EPISODES) >= read.low) & (read.score(EPISODES) <= read.high)).all()
    text = (tmp_path / "r" / "reward_model.json").read_text()
    (tmp_path / "r" / "reward_model.json").write_text(text.replace('"error_before": ', '"error_before": 1', 1))
    with pytest.raises(textgym.InvalidArgumentError, match="was changed after it was saved"):
        FittedReward(str(tmp_path / "r"))
    if kind == "labels":
        np.testing.assert_allclose(model.class_probabilities(EPISODES).sum(1), 1, atol=1e-6)
    if kind == "pairs":
        there, back = (model.preference_probability(a, b) for a, b in ((EPISODES, EPISODES[::-1]), (EPISODES[::-1], EPISODES)))
        np.testing.assert_allclose(there + back, 1, atol=1e-6)


def test_an_ordinal_temperature_keeps_the_order_of_texts() -> None:
    objective, latent = Ordinal(("a", "b", "c", "d")), torch.linspace(-4, 4, 50)[:, None]
    for temperature in (0.5, 3.0):
        assert (objective.score(latent, temperature).diff() > 0).all()


# --- ensembles -----------------------------------------------------------------------------------------------------------------------


def test_combinations_and_their_ranges() -> None:
    scores = np.array([[1.0, 4.0], [3.0, 4.0]])
    for how, expected in (("mean", [2, 4]), ("min", [1, 4]), ("mean-std", [1.5, 4]), ("uncertainty-weighted", [1.5, 4])):
        np.testing.assert_allclose(combine(scores, how, 0.5), expected)  # type: ignore[arg-type]
    extreme = np.array([[0.0], [6.0]])
    for how in ("mean", "min", "mean-std", "uncertainty-weighted"):
        low, high = combined_range(0, 6, how, 2.0)  # type: ignore[arg-type]
        assert low <= combine(extreme, how, 2.0)[0] <= high  # type: ignore[arg-type]
    assert combined_range(-np.inf, np.inf, "mean-std", 0) == (-np.inf, np.inf)
    with pytest.raises(textgym.InvalidArgumentError, match="got 'median'"):
        combine(scores, "median")  # type: ignore[arg-type]


def test_a_bootstrap_keeps_clusters_together_and_ids_apart() -> None:
    texts = ["a wonderful film about the sea and its ships", "one dull table", "the river is poor, the film is not"]
    items = [RatedText(id=f"{i}-{copy}", text=t, rating=float(i)) for i, t in enumerate(texts) for copy in range(4)]
    data = JudgementSet("ratings", tuple(items))
    drawn = bootstrapped(data, np.random.default_rng(1))
    counts = Counter(item.id.split("#")[0] for item in drawn.items)
    by_text = {text: {counts[item.id] for item in items if item.text == text} for text in texts}
    assert all(len(found) == 1 for found in by_text.values())  # the four copies were drawn as often as each other
    assert len(drawn) == 12
    assert (drawn.low, drawn.high) == (0, 2)  # of the whole set, whatever was drawn
    assert {item.rating for item in bootstrapped(data, np.random.default_rng(7)).items} <= {0.0, 1.0, 2.0}


def test_bootstraps_of_judgements_that_all_hang_together_still_differ(pairs: Any) -> None:
    texts = made_up_texts(30, 0)
    chained = [
        PreferencePair(id=f"{i}-{j}", chosen=a, rejected=b) for i, a in enumerate(texts) for j, b in enumerate(texts) if a != b and i < j
    ]
    prompt = "A very long prompt that stands before every one of the continuations which were rated by people: "
    alike = [RatedText(id=str(i), prompt=prompt, text=t, rating=float(i), group="one") for i, t in enumerate(texts)]
    for data in (JudgementSet("pairs", tuple(chained)), JudgementSet("ratings", tuple(alike))):
        whole = {item.id for item in data.items}
        draws = [{item.id.split("#")[0] for item in bootstrapped(data, np.random.default_rng(seed)).items} for seed in range(4)]
        assert all(len(drawn) < 0.85 * len(whole) for drawn in draws)
        assert len(set(map(frozenset, draws))) == 4
    drawn = bootstrapped(JudgementSet("pairs", tuple(chained)), np.random.default_rng(0))
    used = {text for item in drawn.items for text in (item.chosen, item.rejected)}
    assert 10 < len(used) < 25  # whole texts are missing, with all their pairs


def test_a_text_alone_cannot_be_bootstrapped() -> None:
    one = [PreferencePair(id=str(i), chosen="a joy", rejected="a bore", rater=str(i)) for i in range(9)]
    with pytest.raises(textgym.InvalidArgumentError, match="9 judgements are of 2 different texts"):
        bootstrapped(JudgementSet("pairs", tuple(one)), np.random.default_rng(0))


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: Any) -> tuple[FittedEnsemble, str]:
    texts = made_up_texts(200, 0)
    rng = np.random.default_rng(0)
    items = [
        RatedText(
            id=str(i), text=t, rating=float(np.clip(worth(t) + rng.normal() * 0.5, -4, 4)), split="validation" if i % 5 == 0 else "train"
        )
        for i, t in enumerate(texts)
    ]
    folder = tmp_path_factory.mktemp("ensembles") / "e"
    options = FitSettings(epochs=25, patience=25, batch_size=16, scorer=HASHED)
    found = fit_reward_ensemble(JudgementSet("ratings", tuple(items), -4, 4), folder, scorer="mlp", settings=options)
    return found.reward, str(folder)


def test_members_spread_more_off_the_distribution(ensemble: tuple[FittedEnsemble, str]) -> None:
    near = ensemble[0].uncertainty(EPISODES)
    far = ensemble[0].uncertainty([textgym.Episode("", f"quixotic {'zyx jwkq ' * n}vexing") for n in range(1, 40)])
    assert far.mean() > 1.5 * near.mean()


def test_members_that_read_texts_alike_read_them_once(ratings: Any, monkeypatch: Any) -> None:
    from textgym.reward_modeling.models.fitted_reward import scores_of_models
    from textgym.reward_modeling.scorers.features import HashedNgrams

    sizes = (64, 64, 32)  # the third reads them its own way
    options = [FitSettings(seed=seed, epochs=1, scorer={"features": "hashed", "size": size}) for seed, size in enumerate(sizes)]
    models = [fit_reward_model(ratings, scorer="mlp", settings=one).reward for one in options]
    models.append(fit_reward_model(ratings, scorer="tfidf").reward)
    texts = [item.text for item in ratings.items[:20]]
    alone = [model.score_texts(texts) for model in models]
    read: list[int] = []
    plain = HashedNgrams.of
    monkeypatch.setattr(HashedNgrams, "of", lambda features, given: read.append(features.size) or plain(features, given))
    np.testing.assert_array_equal(scores_of_models(models, texts), np.stack(alone))
    assert read == [64, 32]
    assert scores_of_models(models, []).shape == (4, 0)


def test_an_ensemble_is_one_reward_by_its_folder(ensemble: tuple[FittedEnsemble, str]) -> None:
    model, folder = ensemble
    members = model.member_scores(TEXTS)
    assert members.shape == (5, 80)
    reward = textgym.make_reward(folder)
    scores, terms = reward.score_terms(EPISODES)
    np.testing.assert_allclose(scores, members.mean(0))
    np.testing.assert_allclose(terms["uncertainty"], members.std(0))
    careful = textgym.make_reward(folder, how="mean-std", penalty=2.0)
    np.testing.assert_allclose(careful.score(EPISODES), members.mean(0) - 2 * members.std(0))
    np.testing.assert_allclose(textgym.make_reward(folder, how="min").score(EPISODES), members.min(0))
    assert reward.score([]).shape == (0,)
    assert FittedEnsemble(folder).version == model.version != FittedEnsemble(folder, how="min").version


def test_the_environment_tells_the_uncertainty(ensemble: tuple[FittedEnsemble, str]) -> None:
    import gymnasium as gym

    env = gym.make("textgym/ReviewContinuation-v0", reward=ensemble[1], max_new_tokens=3)
    env.reset(seed=0)
    env.action_space.seed(0)
    over, info = False, {}
    while not over:
        _, _, over, _, info = env.step(env.action_space.sample(env.unwrapped.action_masks().astype(np.int8)))
    assert info["reward_terms"]["uncertainty"] > 0


def test_an_ensemble_whose_files_were_changed_is_refused(ensemble: tuple[FittedEnsemble, str], tmp_path: Any) -> None:
    ensemble[0].save(tmp_path / "e")
    (tmp_path / "e" / "member-3" / "reward_model.json").write_text("{}")
    with pytest.raises(textgym.InvalidArgumentError, match=r"member-3/reward_model\.json was changed"):
        textgym.make_reward(str(tmp_path / "e"))
    ensemble[0].save(tmp_path / "e")  # an ensemble may be replaced
    assert textgym.make_reward(str(tmp_path / "e")).score(EPISODES).shape == (80,)


def test_an_interrupted_ensemble_keeps_the_members_that_are_done(ratings: Any, tmp_path: Any) -> None:
    def report(number: int, _: Any) -> None:
        if number == 3:
            raise KeyboardInterrupt

    options = {"scorer": "mlp", "settings": FitSettings(epochs=1, scorer=HASHED)}
    with pytest.raises(KeyboardInterrupt):
        fit_reward_ensemble(ratings, tmp_path / "e", report=report, **options)  # type: ignore[arg-type]
    read = FittedEnsemble(str(tmp_path / "e"))
    assert (len(read.members), read.description["finished"]) == (2, False)


# --- abstention ----------------------------------------------------------------------------------------------------------------------


def test_coverage_falls_with_the_bar_and_the_fallback_is_told(ensemble: tuple[FittedEnsemble, str]) -> None:
    certain = ensemble[0].uncertainty(EPISODES)
    plain = ensemble[0].score(EPISODES)
    coverage = []
    for above in (0.0, *np.quantile(certain, [0.25, 0.5, 0.75]), float(certain.max())):
        scores, terms = textgym.make_reward(ensemble[1], abstain_above=float(above), fallback=-1.5).score_terms(EPISODES)
        abstained = terms["abstained"] == 1
        np.testing.assert_array_equal(abstained, certain > above)
        np.testing.assert_allclose(scores, np.where(abstained, -1.5, plain))
        coverage.append(1 - abstained.mean())
    assert coverage == sorted(coverage)
    assert coverage[-1] == 1


def test_classes_and_rater_deviation_can_abstain_too(labels: Any, ratings: Any, tmp_path: Any) -> None:
    for name, data, loss in (("l", labels, "cross-entropy"), ("h", ratings, "heteroscedastic")):
        fit_reward_model(data, tmp_path / name, scorer="mlp", loss=loss, settings=FitSettings(epochs=4, scorer=HASHED))
        middle = float(np.median(FittedReward(str(tmp_path / name)).uncertainty(EPISODES)))
        _, terms = textgym.make_reward(str(tmp_path / name), abstain_above=middle, fallback=0.5).score_terms(EPISODES)
        assert terms["abstained"].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"abstain_above": 0.5}, "takes both"),
        ({"fallback": 0.5}, "takes both"),
        ({"abstain_above": -1.0, "fallback": 0.0}, "at least 0"),
        ({"abstain_above": 0.5, "fallback": 9.0}, "inside the range of the scores, -4 to 4, got 9"),
        ({"how": "median"}, "got 'median'"),
        ({"penalty": -1.0}, "penalty must be at least 0"),
    ],
)
def test_what_an_ensemble_cannot_do_is_one_line(ensemble: tuple[FittedEnsemble, str], options: Any, said: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=said):
        textgym.make_reward(ensemble[1], **options)


def test_what_cannot_be_fitted_is_one_line(ratings: Any, tmp_path: Any) -> None:
    fit_reward_model(ratings, tmp_path / "r", scorer="tfidf")
    calls: list[tuple[Any, str]] = [
        (lambda: textgym.make_reward(str(tmp_path / "r"), abstain_above=1.0, fallback=0.0), "does not know how uncertain it is"),
        (lambda: fit_reward_ensemble(ratings, ensemble=EnsembleSettings(bootstrap=False), scorer="tfidf"), "are all the same: bootstrap"),
        (lambda: EnsembleSettings(members=1), "2 members or more"),
        (lambda: EnsembleSettings(penalty=-1.0), "penalty must be at least 0, got -1"),
        (lambda: fit_reward_model(ratings, scorer="tfidf", settings=FitSettings(length_debias="penalty")), "use 'residual'"),
        (lambda: FitSettings(length_debias="x"), "length_debias must be"),
        (lambda: FittedReward(str(tmp_path / "r")).preference_probability(EPISODES, EPISODES), "no probability of preference"),
        (lambda: FittedReward(str(tmp_path / "r")).class_probabilities(EPISODES), "knows no classes"),
    ]
    few = replace(ratings, items=(*ratings.split("train").items, *ratings.split("validation").items[:10]))
    calls.append((lambda: fit_reward_model(few, scorer="tfidf", settings=FitSettings(calibrate=True)), "at least 20 validation judgements"))
    for call, said in calls:
        with pytest.raises(textgym.InvalidArgumentError, match=said):
            call()


# --- the command ---------------------------------------------------------------------------------------------------------------------


def test_the_commands(ratings: Any, tmp_path: Any, monkeypatch: Any) -> None:
    from textgym.reward_modeling.data.writing import write_judgements

    monkeypatch.setenv("COLUMNS", "250")
    whole = replace(ratings, items=tuple(replace(item, split="test") if i % 5 == 1 else item for i, item in enumerate(ratings.items)))
    data = str(tmp_path / "ratings.jsonl")
    write_judgements(whole, data)
    folder = str(tmp_path / "e")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["reward", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    said = run(
        "fit", data, "--members", "2", "--bootstrap", "--length-debias", "residual", "--calibrate", "--combine", "mean-std", "--out", folder
    )
    assert "member 2  epoch" in said
    assert said.count("calibration: isotonic; expected calibration error") == 2
    assert "uncertainty" in run("score", folder, "--continuation", "wonderful film", "--set", "abstain_above=0.1", "--set", "fallback=0")
    report = tmp_path / "r.html"
    said = run("evaluate", folder, data, "--baselines", "", "--learning-curve", "40,100", "--draws", "2", "--out", str(report))
    for part in ("without calibration", "one member", "rank correlation", "mean error by coverage", "100 training judgements: pearson"):
        assert part in said, part
    page = report.read_text()
    for part in ("Does it know when it is wrong?", "More data?", "fifth 5"):
        assert part in page
    with pytest.raises(textgym.InvalidArgumentError, match="for an ensemble"):
        CliRunner().invoke(cli, ["reward", "fit", data, "--bootstrap", "--out", folder], catch_exceptions=False)
    with pytest.raises(textgym.InvalidArgumentError, match="is none"):
        CliRunner().invoke(cli, ["reward", "evaluate", "vader", data, "--learning-curve", "40,100"], catch_exceptions=False)
