"""make_reward: what it accepts, and that no bad score passes the border between a reward model and the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from textgym.envs.env import TextEnv
from textgym.rewards.reward import RewardSession, RewardTerm
from textgym.tokenization import Vocabulary, load_vocabulary

EPISODES = [textgym.Episode("a b", " b"), textgym.Episode("a c", " d"), textgym.Episode("g h", " poison\nhere")]


class Length:
    """Characters of the continuation."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        return [self.scale * len(e.continuation) for e in episodes]


def letters(episodes: Sequence[textgym.Episode]) -> list[int]:
    return [sum(c.isalpha() for c in e.continuation) for e in episodes]


def returning(value: Any) -> Callable[[Sequence[textgym.Episode]], Any]:
    def constant(episodes: Sequence[textgym.Episode]) -> Any:
        return value

    return constant


def one_line_error(reward: textgym.Reward, episodes: Sequence[textgym.Episode] = EPISODES) -> str:
    with pytest.raises(textgym.RewardError) as caught:
        reward.score(episodes)
    assert isinstance(caught.value, textgym.TextgymError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what a reward may be ---------------------------------------------------------------------------------------------------------


def test_a_registered_name_with_options() -> None:
    reward = textgym.make_reward("length", unit="characters")
    assert reward.name == "length"
    assert reward.score(EPISODES).tolist() == [2.0, 2.0, 12.0]
    assert reward.terms[0].origin.startswith("length (textgym ")


def test_a_callable_an_object_and_a_class() -> None:
    assert textgym.make_reward(letters).name == "letters"
    assert textgym.make_reward(letters).score(EPISODES).tolist() == [1.0, 1.0, 10.0]
    assert textgym.make_reward(Length(0.5)).score(EPISODES).tolist() == [1.0, 1.0, 6.0]
    by_class = textgym.make_reward(Length, scale=2.0)
    assert by_class.name == "Length"
    assert by_class.score(EPISODES).tolist() == [4.0, 4.0, 24.0]


def test_a_reward_that_is_built_is_returned_as_it_is() -> None:
    reward = textgym.make_reward("copied")
    assert textgym.make_reward(reward) is reward


def test_a_mapping_is_a_weighted_sum_of_registered_rewards() -> None:
    reward = textgym.make_reward({"copied": 2.0, "repetition": -0.5})
    total, terms = reward.score_terms(EPISODES)
    assert reward.name == "2*copied - 0.5*repetition"
    assert terms["copied"].tolist() == [1.0, 0.0, 0.0]
    assert terms["repetition"].tolist() == textgym.make_reward("repetition").score(EPISODES).tolist()
    np.testing.assert_allclose(total, 2.0 * terms["copied"] - 0.5 * terms["repetition"], rtol=0, atol=1e-12)


def test_the_reward_of_an_environment_is_the_weighted_sum_of_the_reported_terms() -> None:
    env = gym.make("textgym/CopyToken-v0", reward={"copied": 2.0, "length": -0.25})
    observation, _ = env.reset(seed=3)
    _, reward, terminated, _, info = env.step(observation["input_ids"][1])
    assert terminated
    assert info["reward_terms"] == {"copied": 1.0, "length": 1.0}
    assert reward == 1.75


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((1, 2, 3), [1.0, 2.0, 3.0]),
        (np.array([1, 2, 3], np.int8), [1.0, 2.0, 3.0]),
        (np.array([1, 2, 3], np.float16), [1.0, 2.0, 3.0]),
        ([True, False, True], [1.0, 0.0, 1.0]),
        (torch.tensor([1.0, 2.0, 3.0], requires_grad=True), [1.0, 2.0, 3.0]),
        (torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), [1.0, 2.0, 3.0]),
    ],
)
def test_scores_of_any_numeric_form_become_float64(scores: Any, expected: list[float]) -> None:
    scored = textgym.make_reward(returning(scores)).score(EPISODES)
    assert scored.dtype == np.float64
    assert scored.tolist() == expected


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("copyed", {}, r"unknown reward 'copyed': did you mean 'copied'\?"),
        ({"copied": 1.0, "copyed": 1.0}, {}, r"unknown reward 'copyed'"),
        ({3: 1.0}, {}, "unknown reward '3'"),
        ({}, {}, "at least one name"),
        ({"copied": float("nan")}, {}, "weight of reward 'copied' must be a finite number, got nan"),
        ({"copied": "1"}, {}, "weight of reward 'copied' must be a finite number, got '1'"),
        ({"copied": 1.0}, {"x": 1}, r"options \['x'\]"),
        ("length", {"untt": "words"}, r"reward 'length' has no option 'untt': did you mean 'unit'\? options: target, unit"),
        ("length", {"unit": "lines"}, "unit must be one of"),
        (Length, {"scal": 2.0}, "no option 'scal'"),
        (letters, {"x": 1}, r"options \['x'\]"),
        (7, {}, "a reward is a name, a callable"),
    ],
)
def test_what_cannot_be_a_reward_is_one_line(spec: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(textgym.TextgymError, match=message) as caught:
        textgym.make_reward(spec, **options)
    assert "\n" not in str(caught.value)


# --- the border -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_names_reward_episode_and_text(bad: float) -> None:
    line = one_line_error(textgym.make_reward(returning([0.0, 0.0, bad])))
    for part in ("reward 'constant'", str(bad), "episode 2 of 3", "poison"):
        assert part in line


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        ([0.0, 0.0], "must return 3 scores for 3 episodes, got shape (2,)"),
        ([[0.0], [0.0], [0.0]], "got shape (3, 1)"),
        (1.0, "got shape ()"),
        (["1", "2", "3"], "must return numbers, got ['1', '2', '3']"),
        (np.array([["a"] * 3, ["b"] * 3]), "must return numbers"),
        ([[0.0], [0.0, 1.0], [0.0]], "must return numbers"),
        ([1 + 2j, 0, 0], "must return numbers"),
        (None, "must return numbers, got None"),
    ],
)
def test_a_result_of_another_form_names_the_reward(raw: Any, part: str) -> None:
    line = one_line_error(textgym.make_reward(returning(raw)))
    assert "reward 'constant'" in line
    assert part in line


def poisoned(episodes: Sequence[textgym.Episode]) -> list[float]:
    for episode in episodes:
        if "poison" in episode.text:
            raise ValueError("cannot\nread this")
    return [0.0 for _ in episodes]


def test_a_reward_that_raises_names_reward_episode_text_and_cause() -> None:
    line = one_line_error(textgym.make_reward(poisoned))
    for part in ("reward 'poisoned'", "ValueError: cannot read this", "episode 2 of 3", "g h poison"):
        assert part in line


def test_a_reward_that_only_raises_on_batches_says_so() -> None:
    def single(episodes: Sequence[textgym.Episode]) -> list[float]:
        (episode,) = episodes
        return [float(len(episode.text))]

    assert "a batch of 3 episodes, each of which it scores alone" in one_line_error(textgym.make_reward(single))


def test_the_plugin_of_a_registered_reward_is_named() -> None:
    term = RewardTerm("mine", textgym.make_reward(returning([0.0])).terms[0].model, 1.0, "mine (my-package 1.0)")
    assert "reward 'mine' of plugin mine (my-package 1.0)" in one_line_error(textgym.Reward((term,)))


@pytest.mark.parametrize("face", ["single", "vector", "stable-baselines3"])
def test_a_bad_score_stops_every_environment(face: str) -> None:
    reward = returning([float("nan")])
    if face == "single":
        env: Any = TextEnv("CopyToken-v0", reward=reward)
    elif face == "vector":
        env = gym.make_vec("textgym/CopyToken-v0", num_envs=1, reward=reward)
    else:
        from textgym.sb3 import make_vec_env

        env = make_vec_env("textgym/CopyToken-v0", n_envs=1, seed=0, reward=reward)
    env.reset()
    with pytest.raises(textgym.RewardError, match="returned nan for episode 0 of 1"):
        env.step(np.array([3]) if face != "single" else 3)


# --- dense rewards ----------------------------------------------------------------------------------------------------------------


class Tokens:
    """Pays every token its id; also scores finished texts."""

    name = "tokens"

    def __init__(self, last: Any = None) -> None:
        self.last = last
        self.prompts: dict[int, list[int]] = {}

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        return [float(sum(e.continuation_ids)) for e in episodes]

    def token_scorer(self, n_rows: int, vocabulary: Vocabulary) -> "Tokens":
        return self

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        self.prompts.update(zip(rows, map(list, prompts), strict=True))

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Any:
        assert set(rows) <= set(self.prompts)
        if self.last is ValueError:
            raise ValueError("no\nmemory")
        return [float(i) for i in token_ids] if self.last is None else self.last


def test_a_dense_reward_pays_every_step_and_its_sum_is_the_reported_term() -> None:
    env = TextEnv("CopyToken-v0", reward=Tokens(), max_new_tokens=4)
    for episode in range(2):  # the sum begins anew
        env.reset(seed=episode)
        paid = []
        terminated = False
        while not terminated:
            _, reward, terminated, _, info = env.step(5 + len(paid) + episode)
            paid.append(reward)
        assert paid == [5.0 + episode, 6.0 + episode, 7.0 + episode, 8.0 + episode]
        assert info["reward_terms"] == {"tokens": sum(paid)}


def test_a_dense_and_a_final_term_add_up() -> None:
    dense = RewardTerm("tokens", Tokens(), 0.5)
    final = RewardTerm("letters", textgym.make_reward(letters).terms[0].model, -1.0)
    env = TextEnv("CopyToken-v0", reward=textgym.Reward((dense, final)), max_new_tokens=2)
    env.reset(seed=0)
    assert env.step(4)[1] == 2.0
    _, reward, _, _, info = env.step(6)
    assert info["reward_terms"] == {"tokens": 10.0, "letters": 2.0}
    assert reward == 3.0 - 2.0


@pytest.mark.parametrize(
    ("last", "part"), [([float("nan")], "returned nan"), ([1.0, 2.0], "got shape (2,)"), (ValueError, "ValueError: no memory")]
)
def test_a_bad_dense_reward_is_a_reward_error(last: Any, part: str) -> None:
    env = TextEnv("CopyToken-v0", reward=Tokens(last), max_new_tokens=2)
    env.reset(seed=0)
    with pytest.raises(textgym.RewardError) as caught:
        env.step(4)
    assert "reward 'tokens'" in str(caught.value)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dense_reward_may_decline() -> None:
    class Declines(Length):
        def token_scorer(self, n_rows: int, vocabulary: Vocabulary) -> None:
            return None

    session = RewardSession(textgym.make_reward(Declines()), 2, load_vocabulary("copy-token"))
    assert session.scorers == {}


# --- log-prob ---------------------------------------------------------------------------------------------------------------------

TEXTS = [textgym.Episode("a b", " c d e"), textgym.Episode("a", " b"), textgym.Episode("h g f", ""), textgym.Episode("a b", " b b b b")]


def test_log_prob_of_a_batch_is_that_of_each_text_alone() -> None:
    torch.manual_seed(0)  # "copy-token" has no weights of its own
    reward = textgym.make_reward("log-prob", model="copy-token")
    batch = reward.score(TEXTS)
    assert batch.tolist() == [reward.score([text])[0] for text in TEXTS]
    assert batch.max() <= 0.0
    assert len(set(batch.tolist())) == len(TEXTS)


def test_dense_log_probs_add_up_to_the_text_s_log_probability() -> None:
    torch.manual_seed(0)
    reward = textgym.make_reward("log-prob", model="copy-token", dense=True)
    env = TextEnv("CopyToken-v0", reward=reward, max_new_tokens=3)
    env.reset(seed=0)
    paid = [env.step(token) for token in (5, 6, 7)]
    info = paid[-1][4]
    whole = reward.score([textgym.Episode(info["prompt"], info["continuation"])])[0]
    assert info["reward_terms"]["log-prob"] == pytest.approx(sum(step[1] for step in paid), abs=1e-9)
    assert sum(step[1] for step in paid) == pytest.approx(whole, abs=1e-5)


def test_a_reward_whose_required_option_is_missing_says_how_to_give_it() -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=r"reward 'keyword' needs words: write keyword\(words=\.\.\.\)"):
        textgym.make_reward("keyword")
