"""Rewards made of rewards: what they make of the scores, what they log, what a resumed run gets back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.envs.env import TextEnv
from textgym.rewards import Cached, Clip, Ensemble, LengthPenalty, NonEmpty, Normalize, Scale, Served, make_reward
from textgym.rewards.composition import Composite, range_of
from textgym.rewards.declaration import declaration_of
from textgym.tokenization import load_vocabulary


def number(episodes: Sequence[textgym.Episode]) -> list[float]:
    return [float(e.continuation) for e in episodes]


def halved(episodes: Sequence[textgym.Episode]) -> list[float]:
    return [float(e.continuation) / 2 for e in episodes]


def texts(*values: Any) -> list[textgym.Episode]:
    return [textgym.Episode("", str(v)) for v in values]


def test_a_sum_logs_every_term_unweighted() -> None:
    reward = make_reward({number: 2.0, halved: -1.0, "length(unit=characters)": 0.5})
    total, values = reward.score_terms(texts(4, 10))
    assert {name: v.tolist() for name, v in values.items()} == {"number": [4, 10], "halved": [2, 5], "length(unit='characters')": [1, 2]}
    assert total.tolist() == [8 - 2 + 0.5, 20 - 5 + 1]


def test_clip_and_scale() -> None:
    total, values = make_reward(Clip(number, -1, 2)).score_terms(texts(-5, 0.5, 7))
    assert total.tolist() == [-1, 0.5, 2]
    assert values["number"].tolist() == [-5, 0.5, 7]
    assert Scale(number, factor=-2, shift=1).score(texts(1, 3)).tolist() == [0, -4]


def test_an_ensemble_logs_its_members_and_their_disagreement() -> None:
    expected = {"mean": [3.0, 7.5], "min": [2.0, 5.0], "mean-std": [3.0 - 0.5, 7.5 - 0.5 * 2.5]}
    for how, scores in expected.items():
        total, values = make_reward(Ensemble(number, halved, how=how, penalty=0.5)).score_terms(texts(4, 10))  # type: ignore[arg-type]
        assert total.tolist() == scores
        assert values["number"].tolist() == [4, 10]
        assert values["halved"].tolist() == [2, 5]
        assert values["disagreement"].tolist() == [1, 2.5]


def test_two_ensembles_in_one_sum_keep_their_values_apart() -> None:
    reward = make_reward({"ensemble(vader, human-rating)": 1.0, "ensemble(vader, repetition, how=min)": 1.0})
    _, values = reward.score_terms([textgym.Episode("The film", " was great.")])
    second = "ensemble(vader, repetition, how='min')"
    assert values["disagreement"][0] != values[f"{second}/disagreement"][0]
    assert values["vader"][0] == values[f"{second}/vader"][0]


def test_non_empty_asks_only_about_texts_that_say_something() -> None:
    asked: list[str] = []

    def listening(episodes: Sequence[textgym.Episode]) -> list[float]:
        asked.extend(e.continuation for e in episodes)
        return [5.0 for _ in episodes]

    reward = make_reward(NonEmpty(listening, value=-2))
    total, values = reward.score_terms(texts("a", "", " \n\t", "b"))
    assert total.tolist() == [5, -2, -2, 5]
    assert asked == ["a", "b"]
    assert values["listening"].tolist() == [5, -2, -2, 5]
    total, values = reward.score_terms(texts("", " "))
    assert total.tolist() == [-2, -2]
    assert list(values) == [reward.name, "listening"]


def test_length_penalty_counts_tokens_or_words() -> None:
    penalty = LengthPenalty(per_token=0.5, free=2)
    episodes = [textgym.Episode("", "a b c d"), textgym.Episode("", "a", continuation_ids=(1, 2, 3)), textgym.Episode("", "")]
    assert penalty.score(episodes) == [-1.0, -0.5, 0.0]


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), min_size=1, max_size=6))
def test_running_statistics_are_those_of_all_scores_so_far(batches: list[list[float]]) -> None:
    normalize = Normalize(number, limit=100)
    for batch in batches:
        normalize.score_terms(texts(*batch), learning=True)
    seen = np.concatenate([np.array(batch) for batch in batches])
    assert normalize.mean == pytest.approx(seen.mean(), abs=1e-6)
    assert normalize.squares / normalize.count == pytest.approx(seen.var(), abs=1e-4)
    before = normalize.state()
    normalize.score(texts(5, 6))  # outside training nothing moves
    assert normalize.state() == before


def test_normalised_scores() -> None:
    normalize = Normalize(number, limit=1.5)
    assert normalize.score(texts(1, 9)).tolist() == [1, 1.5]  # nothing learnt yet
    total, values = normalize.score_terms(texts(2, 4, 6, 8), learning=True)
    np.testing.assert_allclose(total, np.clip((np.array([2, 4, 6, 8]) - 5) / np.sqrt(5), -1.5, 1.5))
    assert values["number"].tolist() == [2, 4, 6, 8]
    constant = Normalize(number)
    assert constant.score_terms(texts(3, 3, 3), learning=True)[0].tolist() == [0, 0, 0]


def test_the_state_of_nested_statistics_comes_back_through_json() -> None:
    def build() -> textgym.Reward:
        return make_reward("0.5*clip(normalize(vader), -1, 1) + normalize(length(unit=characters))")

    episodes = [textgym.Episode("The film", t) for t in (" was great.", " was awful!", " was.", " is a masterpiece of joy")]
    learnt, fresh = build(), build()
    learnt.score_terms(episodes, learning=True)
    assert learnt.score(episodes).tolist() != fresh.score(episodes).tolist()
    fresh.load_state(json.loads(json.dumps(learnt.state())))
    assert learnt.score(episodes).tolist() == fresh.score(episodes).tolist()
    again = [r.score_terms(episodes[:2], learning=True)[0].tolist() for r in (learnt, fresh)]
    assert again[0] == again[1]


def test_a_run_s_statistics_move_in_training_only_and_are_saved_with_it(tmp_path: Path) -> None:
    reward = "normalize(length(unit=characters))"
    agent: Any = textgym.make_agent("reinforce", "CopyToken", reward=reward, n_envs=8, device="cpu", kl_coef=0.0)
    agent.learn(32)
    (term,) = agent.env.mdp.reward.terms
    assert term.model.count == 32
    agent.save(tmp_path / "agent", training_state=True)
    loaded: Any = textgym.load_agent(tmp_path / "agent")
    (again,) = loaded.env.mdp.reward.terms
    assert again.model.state() == term.model.state()
    from textgym.experiments.evaluate import evaluate

    evaluate(agent, "validation", 8, seed=0)
    assert term.model.count == 32


def test_ranges_follow_from_those_inside() -> None:
    class Unit:
        low, high = 0.0, 1.0

        def __init__(self, name: str = "unit") -> None:
            self.name = name

        def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
            return [0.5 for _ in episodes]

    cases: list[tuple[Any, tuple[float, float]]] = [
        (Clip(Unit(), -3, 2), (-3, 2)),
        (Scale(Unit(), -2, 1), (0, 2)),
        (Normalize(Unit(), 4), (-4, 4)),
        (Ensemble(Unit(), Unit("other"), how="min"), (0, 1)),
        (Ensemble(Unit(), Unit("other"), how="mean-std", penalty=2), (-1, 1)),
        (NonEmpty(Unit(), -7), (-7, 1)),
        (Served(Unit()), (0, 1)),
        (Cached({"vader": 0.5}, "x"), (-2, 2)),
        (Scale({"vader": 1.0, "length": 0.0}), (-4, 4)),
        (Served({"vader": 0.0}), (-np.inf, np.inf)),
    ]
    for model, expected in cases:
        declared = declaration_of(model)
        assert (declared.low, declared.high) == expected, model
    assert range_of(make_reward("2*vader - repetition")) == (-9, 8)


def test_needs_are_those_of_the_rewards_inside() -> None:
    class Needy:
        needs_references, deterministic, min_texts_per_second = True, False, 2.0

        def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
            return [0.0 for _ in episodes]

    declared = declaration_of(Clip(make_reward({Needy: 1.0, number: 1.0})))
    assert (declared.needs_references, declared.deterministic, declared.min_texts_per_second) == (True, False, 2.0)


def test_identities_tell_composites_apart() -> None:
    specs = [
        "clip(vader, 0, 1)",
        "clip(vader, 0, 2)",
        "scale(vader, 1)",
        "scale(vader, 1, 0.5)",
        "ensemble(vader, length)",
        "ensemble(vader, length, how=min)",
        "non-empty(vader)",
        "non-empty(vader, 0)",
        "normalize(vader)",
        "shaping(vader)",
        "shaping(vader, 0.5)",
        "length-penalty",
        "length-penalty(free=1)",
        "vader",
        "0.5*vader",
    ]
    assert len({make_reward(spec).identity() for spec in specs}) == len(specs)
    assert make_reward("served(vader, workers=3)").identity() == make_reward("served(vader)").identity()


@pytest.mark.parametrize("bad", [np.inf, "wrong length"])
def test_a_composite_s_own_faults_do_not_pass_the_border(bad: Any) -> None:
    class Broken(Composite):
        def score_terms(self, episodes: Sequence[textgym.Episode], learning: bool = False) -> Any:
            return (np.zeros(len(episodes) + 1) if bad == "wrong length" else np.full(len(episodes), bad)), {}

    with pytest.raises(textgym.RewardError, match="reward 'Broken'"):
        make_reward(Broken(number)).score(texts(1, 2))


# --- the same everywhere ---------------------------------------------------------------------------------------------------------

MIXED = "human-rating + 0.5*clip(vader, -1, 1) - 0.1*ensemble(vader, repetition, how=mean-std) + non-empty(length(unit=words), -1) - length-penalty"


def test_single_batch_vector_and_sb3_environments_agree() -> None:
    import gymnasium as gym

    from textgym.sb3 import make_vec_env

    reward = make_reward(MIXED)
    options: dict[str, Any] = {"reward": MIXED, "max_new_tokens": 5}
    sb3 = make_vec_env("ReviewContinuation", n_envs=4, seed=3, monitor=False, **options)
    vector = gym.make_vec("textgym/ReviewContinuation-v0", num_envs=4, autoreset_mode="SameStep", **options)
    sb3.reset()
    vector.reset(seed=3)
    allowed = np.flatnonzero(load_vocabulary("reviews").allowed_mask)
    rng, n_ended = np.random.default_rng(0), 0
    for _ in range(10):
        actions = rng.choice(allowed, 4)
        _, paid, dones, infos = sb3.step(actions)
        _, theirs, terminated, _, their_infos = vector.step(actions)
        np.testing.assert_array_equal(dones, terminated)
        np.testing.assert_array_equal(paid, theirs.astype(np.float32))
        rows = np.flatnonzero(dones)
        n_ended += len(rows)
        episodes = [textgym.Episode(infos[r]["prompt"], infos[r]["continuation"], continuation_ids=tuple([0] * 5)) for r in rows]
        total, terms = reward.score_terms(episodes)
        for i, row in enumerate(rows):
            alone, alone_terms = reward.score_terms([episodes[i]])
            assert alone[0] == total[i]
            assert paid[row] == np.float32(total[i])
            assert infos[row]["reward_terms"] == {name: values[i] for name, values in terms.items()}
            assert infos[row]["reward_terms"] == {name: values[0] for name, values in alone_terms.items()}
            assert all(their_infos["final_info"]["reward_terms"][name][row] == values[i] for name, values in terms.items())
    assert n_ended == 8


# --- dropped episodes in training ------------------------------------------------------------------------------------------------


def picky(episodes: Sequence[textgym.Episode]) -> list[float]:
    if any(e.continuation.strip() in "abcd" for e in episodes):
        raise OSError("the judge is busy")
    return [1.0 for _ in episodes]


def test_ppo_learns_from_what_is_left_and_counts_what_is_dropped() -> None:
    import torch
    from stable_baselines3 import PPO

    from textgym.sb3 import CausalLMPolicy, EpisodeRolloutBuffer, make_vec_env

    reward = Served(picky, retries=0, on_failure="drop")
    vec = make_vec_env("CopyToken-v0", n_envs=8, seed=0, reward=reward, drop_failed=True)
    ppo = PPO(
        CausalLMPolicy, vec, n_steps=8, batch_size=32, n_epochs=2, seed=0, device="cpu",
        policy_kwargs={"model": "copy-token"}, rollout_buffer_class=EpisodeRolloutBuffer,
    )  # fmt: skip
    paid: list[float] = []
    buffer: Any = ppo.rollout_buffer
    add = buffer.add
    buffer.add = lambda obs, action, reward, *rest: (paid.extend(reward.tolist()), add(obs, action, reward, *rest))
    ppo.learn(64)
    dropped = int(np.isnan(paid).sum())
    assert 0 < dropped < 64
    assert buffer.statistics["dropped"] == dropped
    assert buffer.statistics["task_reward"] == pytest.approx(np.nanmean(paid))
    assert len(buffer.segments) == 64 - dropped
    for batch in buffer.get(32):
        assert torch.isfinite(batch.returns).all()
        assert torch.isfinite(batch.advantages).all()
    assert all(torch.isfinite(p).all() for p in ppo.policy.parameters())
    assert np.isfinite([ppo.logger.name_to_value[k] for k in ("train/loss", "train/approx_kl", "train/value_loss")]).all()


def test_a_learner_that_cannot_leave_episodes_out_stops() -> None:
    env: Any = TextEnv("CopyToken-v0", reward=Served(picky, retries=0, on_failure="drop"))
    env.reset(seed=0)
    first = load_vocabulary("copy-token").encode(["a"])[0][0]
    with pytest.raises(textgym.RewardError, match=r"gave up episode .* on_failure='drop' needs a learner that leaves such episodes out"):
        env.step(first)
