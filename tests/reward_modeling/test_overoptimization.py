"""The figures of over-optimisation against brute force and against what is known in closed form."""

import itertools
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textgym
from textgym.cli.overoptimize import overoptimize_command
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.writing import write_judgements
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.overoptimization.config import COMBINATIONS, OveroptimizationConfig
from textgym.reward_modeling.overoptimization.curve import Curve, at_levels
from textgym.reward_modeling.overoptimization.fitted_models import halves
from textgym.reward_modeling.overoptimization.report import figure, rows, verdict, write_overoptimization
from textgym.reward_modeling.overoptimization.run import Overoptimization, overoptimize
from textgym.reward_modeling.overoptimization.run_folder import RunFolder
from textgym.reward_modeling.overoptimization.scaling_forms import ScalingForm, best_of_n, fit_scaling_form, kl_of_best_of_n
from textgym.reward_modeling.overoptimization.selection import write_samples


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_best_of_n_is_the_mean_over_all_draws(n: int) -> None:
    rng = np.random.default_rng(n)
    proxy, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    expected = [
        np.mean([g[max(draw, key=lambda i: p[i])] for draw in itertools.combinations(range(6), n)])
        for p, g in zip(proxy, gold, strict=True)
    ]
    np.testing.assert_allclose(best_of_n(proxy, gold, n), expected)


def test_equal_proxies_share_their_chances() -> None:
    proxy, gold = np.array([[1.0, 1.0, 0.0]]), np.array([[10.0, 20.0, 0.0]])
    np.testing.assert_allclose(best_of_n(proxy, gold, 3), 15)
    np.testing.assert_allclose(best_of_n(np.zeros((1, 3)), gold, 2), 10)


def test_the_kl_is_that_of_the_distribution_of_the_best() -> None:
    for n in (1, 2, 7, 100):
        u = (np.arange(200_000) + 0.5) / 200_000  # of n uniform numbers the largest has the density n uⁿ⁻¹
        log_density = math.log(n) + (n - 1) * np.log(u)
        assert kl_of_best_of_n(n) == pytest.approx(float((np.exp(log_density) * log_density).mean()), abs=1e-3)


def test_a_proxy_with_heavy_errors_turns_over_and_one_with_light_errors_does_not() -> None:
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(400, 512))
    light = gold + rng.normal(size=gold.shape)
    heavy = np.where(rng.random(gold.shape) < 0.01, 10 - 3 * gold.clip(0), gold)  # one text in a hundred fools it
    curves = {k: [best_of_n(p, gold, n).mean() for n in (1, 8, 64, 512)] for k, p in (("light", light), ("heavy", heavy))}
    assert curves["light"] == sorted(curves["light"])
    assert curves["heavy"][-1] < curves["heavy"][1]


@pytest.mark.parametrize(
    ("form", "alpha", "beta", "turn"), [("best-of-n", 1.2, 0.3, 2.0), ("rl", 1.2, 0.6, math.e), ("rl", 1.0, -0.1, math.inf)]
)
def test_the_forms_are_recovered_with_their_turn_over(form: Any, alpha: float, beta: float, turn: float) -> None:
    d = np.linspace(0, 4, 30)
    fitted = fit_scaling_form(d, ScalingForm(form, alpha, beta, 1, turn)(d), form)
    assert (fitted.alpha, fitted.beta, fitted.r2) == pytest.approx((alpha, beta, 1))
    assert fitted.turn_over == pytest.approx(turn)
    if math.isfinite(turn):
        near = fitted(np.array([turn - 0.1, turn, turn + 0.1]))
        assert near[1] == near.max()


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: kl_of_best_of_n(0), "at least 1, got 0"),
        (lambda: best_of_n(np.zeros((1, 3)), np.zeros((1, 3)), 4), "n must be 1..3"),
        (lambda: best_of_n(np.zeros((1, 3)), np.zeros((1, 2)), 1), "one shape"),
        (lambda: fit_scaling_form([0, 1], [0, 1], "rl"), "two distances"),
        (lambda: fit_scaling_form([1, 2], [0, 1], "sft"), "got 'sft'"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_one_line(call: Any, part: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=part):
        call()


@pytest.mark.slow
def test_a_whole_run_is_reported_and_goes_on_where_it_was(tmp_path: Path) -> None:
    ratings, run = load_judgements("human-ratings"), tmp_path / "run"
    write_judgements(replace(ratings, items=ratings.items[::20]), tmp_path / "few.jsonl")
    config = OveroptimizationConfig(
        judgements=str(tmp_path / "few.jsonl"),
        gold_scorer="tfidf",
        gold_rounds=0,
        proxy_scorer="tfidf",
        sizes=(40,),
        seeds=3,
        members=2,
        prompts=3,
        samples=8,
        tokens=200,
        evaluations=4,
        points=3,
        max_kl=0.5,
        first_seed=5,
        validation_prompts=8,
        settings={"n_envs": 8, "max_new_tokens": 6},
    )
    first = overoptimize(config, run)
    assert [(c.how, c.kl.shape) for c in first.best_of_n] == [(h, (3, 4)) for h in ("single", "mean", "min", "uncertainty-weighted")]
    assert all(c.gold.shape == (3, 3) and (c.kl[:, 0] == 0).all() and (c.kl <= 0.5).all() for c in first.rl)
    for curve in (*first.best_of_n, *first.rl):
        assert np.isfinite([curve.proxy, curve.gold]).all()
    rising = first.best_of_n[0].proxy.mean(0)
    assert (np.diff(rising) > 0).all()  # the best of more is better, by what it is chosen by
    write_overoptimization(first, run / "report.html")
    assert "Best of n" in (run / "report.html").read_text()
    prompts = [{prompt for prompt, _ in json.loads((run / "samples" / f"{seed}.json").read_text())} for seed in (5, 6, 7)]
    assert len(set.union(*prompts)) == 9  # no prompt serves two seeds
    point = json.loads((run / "rl" / "40-min-6.json").read_text())[-1]
    gold = FittedReward(str(run / "gold"))
    assert point["gold"] == pytest.approx(gold.score([textgym.Episode(*text) for text in point["texts"]]).mean())
    for name in ("rl/40-min-6.json", "rl/40-mean-5.json", "scores/7.json"):  # as if it had been interrupted there
        (run / name).unlink()
    steps: list[str] = []
    again = overoptimize(config, run, lambda done, total, note: steps.append(f"{done}/{total}"), processes=2)
    assert steps[-1] == "22/22"
    for one, other in zip((*first.best_of_n, *first.rl), (*again.best_of_n, *again.rl), strict=True):
        np.testing.assert_array_equal(one.gold, other.gold)
    with pytest.raises(textgym.RunDirectoryError, match="other settings"):
        overoptimize(replace(config, tokens=300), run)


def test_more_prompts_than_there_are_is_one_line(tmp_path: Path) -> None:
    config = OveroptimizationConfig(prompts=1000, seeds=3)
    with pytest.raises(textgym.InvalidArgumentError, match="3000 validation prompts, and ReviewContinuation-v0 has"):
        write_samples(config, RunFolder(tmp_path, config), 0)


def test_a_run_is_read_at_levels_of_kl() -> None:
    kl, scores = np.array([0, 1, 1, 0.5, 9.0]), np.array([0, 5, 1, 2, 6.0])
    found = at_levels(np.array([0, 0.25, 1, 4, 9, 16.0]), kl, scores)
    np.testing.assert_allclose(found[0], [0, 0.25, 1, 4, 9, 9])  # it never was at 16
    np.testing.assert_allclose(found[1], [0, 1, 2, 4, 6, 6])  # straight over √KL; of three measurements at 1, the last
    np.testing.assert_allclose(at_levels(np.array([0, 4.0]), np.zeros(2), scores[:2]), [[0, 0], [5, 5]])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"seeds": 2}, "seeds must be at least 3"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": (5,)}, "20 or more"),
        ({"members": 1}, "members"),
        ({"max_kl": 0}, "max_kl"),
    ],
)
def test_a_run_that_cannot_be_is_one_line(options: dict[str, Any], part: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=part):
        OveroptimizationConfig(**options)


def _curve(how: str, gold: Any) -> Curve:
    form = fit_scaling_form([0, 1, 2], [0, 1, 0], "rl")
    proxy, kl = np.array([[0, 1, 2.0]] * 3), np.array([[0, 1, 4.0], [0, 1.1, 4.1], [0, 0.9, 3.9]])
    return Curve(100, how, kl, proxy, np.array(gold), form)


TURNS = [[0, 1.0, 0.2], [0, 1.1, 0.3], [0, 0.9, 0.1]]
RISES = [[0, 0.2, 1.0], [0, 0.3, 1.1], [0, 0.1, 0.9]]
UNSURE = [[0, 1.0, 0.2], [0, 0.8, 1.1], [0, 0.9, 0.4]]
NOISE = [[0, 1.0, 0.0], [0, 0.0, 0.5], [0, 0.4, 0.1]]  # the first seed alone makes the middle the highest


def test_turning_over_is_seen() -> None:
    curve = _curve("single", TURNS)
    assert curve.turns_over
    assert curve.surely_turns_over
    assert (curve.rise.value, curve.fall.value, curve.proxy_gain.value) == pytest.approx((1.0, 0.8, 1.0))
    assert curve.kl_at_peak.value == pytest.approx(1)
    np.testing.assert_allclose(_curve("single", UNSURE).kl_at_peaks, [1, 4.1, 0.9])
    assert not _curve("single", RISES).turns_over
    assert not _curve("single", -np.array(RISES)).turns_over  # it never rose: a useless proxy, not an over-optimised one
    assert not replace(curve, proxy=-curve.proxy).turns_over  # the proxy falls as well: no over-optimisation


def test_each_seeds_peak_is_chosen_by_the_others() -> None:
    curve = _curve("single", NOISE)
    assert curve.peak == 1
    np.testing.assert_array_equal(curve.peaks, [2, 1, 1])
    assert curve.fall.value == pytest.approx((0 + -0.5 + 0.3) / 3)
    assert not curve.turns_over


def _fall_and_rise_of_many(truth: Any) -> np.ndarray[Any, Any]:
    """Return (runs, 2) of fall and rise of curves with this true gold score and noise of one unit, six seeds each."""
    rng = np.random.default_rng(0)
    zeros, form = np.zeros((6, len(truth))), fit_scaling_form([0, 1, 2], [0, 1, 0], "rl")
    curves = [Curve(30, "single", zeros, zeros, np.array(truth) + rng.normal(size=zeros.shape), form) for _ in range(500)]
    return np.array([(curve.fall.value, curve.rise.value) for curve in curves])


def test_noise_neither_rises_nor_falls_and_a_planted_turn_over_is_found() -> None:
    noise = _fall_and_rise_of_many([0.0] * 9)
    np.testing.assert_allclose(noise.mean(0), 0, atol=4 * noise.std() / math.sqrt(len(noise)))
    planted = _fall_and_rise_of_many([0.0, 1, 2, 4, 3, 2, 1, 1, 1])
    np.testing.assert_allclose(planted.mean(0), [3, 4], atol=0.1)


@pytest.mark.parametrize(
    ("single", "ensemble", "parts", "turned"),
    [
        (
            TURNS,
            RISES,
            [
                "turns over: it rises by 1.00 [0.75, 1.25] up to a KL of 1.0 nats and falls by 0.80 [0.80, 0.80]",
                'The ensemble "mean" delays it',
                "ends higher",
            ],
            "yes",
        ),
        (TURNS, TURNS, ["neither delays nor hastens it distinguishably", "ends neither higher nor lower distinguishably"], "yes"),
        (RISES, TURNS, ["does not turn over (it is highest at the end): there is nothing to delay"], "no"),
        (UNSURE, [[0, 0.2, -1], [0, 0.3, -1.0], [0, 0.1, -1]], ["the fall cannot be told from none", "ends lower"], "on average"),
    ],
)
def test_the_verdict_is_computed(single: Any, ensemble: Any, parts: list[str], turned: str) -> None:
    curves = [_curve("single", single), *(_curve(how, ensemble) for how in COMBINATIONS)]
    found = Overoptimization(OveroptimizationConfig(sizes=(100,)), 0.7, (), tuple(curves))
    for part in parts:
        assert part in verdict(found, curves)
    assert turned in rows(found, curves)[0]
    circles = [line for line in figure(curves).axes[1].lines if line.get_marker() == "o"]
    assert len(circles) == sum(curve.turns_over for curve in curves)


def test_a_missing_extra_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(textgym.MissingExtraError, match=r"textgym\[embedding\]"):
        overoptimize(OveroptimizationConfig(gold_scorer="mlp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_has_the_defaults_of_the_run() -> None:
    config = asdict(OveroptimizationConfig())
    options = {option.name: option.default for option in overoptimize_command.params if option.name in config}
    assert options.pop("sizes") == ",".join(map(str, config["sizes"]))
    assert len(options) > 10
    assert options == {name: config[name] for name in options}


def test_halves_share_neither_texts_nor_raters() -> None:
    texts = [
        f"a film of {word} and {other}"
        for word in ["joy", "fear", "hope", "rage"]
        for other in ["snow", "rain", "wind", "fog", "dust", "sun"]
    ]
    names = tuple(f"rater {i}" for i in range(6))
    items = [RatedText(id=str(i), text=text, rating=2.5, ratings=(0, 1, 2, 3, 4, 5), raters=names) for i, text in enumerate(texts * 4)]
    items += [replace(item, id=item.id + "!", text=item.text.upper() + "!") for item in items]
    both = halves(JudgementSet("ratings", tuple(items)))
    found = [{item.text.casefold().rstrip("!") for item in half.items} for half in both]
    assert not found[0] & found[1]
    assert found[0] | found[1] == set(texts)
    given = [{rating for item in half.items for rating in item.ratings} for half in both]
    assert not given[0] & given[1]
    unnamed = JudgementSet("ratings", tuple(replace(item, raters=()) for item in items))
    assert all(len(item.ratings) == 3 for half in halves(unnamed) for item in half.items)
