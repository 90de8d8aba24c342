"""Single, vector and stable-baselines3 environments go through the same states, rewards and infos, step by step."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

import textgym
from textgym.envs.env import TextEnv
from textgym.envs.token_space import TokenSpace
from textgym.sb3 import make_vec_env
from textgym.tokenization import Vocabulary

N, STEPS, SEED = 4, 40, 11


class Dense:
    """Pays each token by its id and its place in the episode."""

    name = "dense"
    age: np.ndarray[Any, Any]

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        return [0.0 for _ in episodes]

    def token_scorer(self, n_rows: int, vocabulary: Vocabulary) -> "Dense":
        scorer = Dense()
        scorer.age = np.zeros(n_rows)
        return scorer

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        self.age[list(rows)] = [len(prompt) for prompt in prompts]

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Any:
        self.age[list(rows)] += 1
        return self.age[list(rows)] + 0.25 * np.array(token_ids)


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("CopyToken-v0", {}),
    ("CopyToken-v0", {"max_new_tokens": 5, "reward": {"copied": 1.0, "length": -0.5}}),
    ("CopyToken-v0", {"max_new_tokens": 5, "reward": Dense()}),
    ("ReviewContinuation-v0", {"max_new_tokens": 6, "reward": {"human-rating": 1.0, "repetition": -1.0}}),
]
settings = pytest.mark.parametrize(("task", "options"), SETTINGS, ids=["one step", "weighted sum", "dense", "reviews"])


def single_env(task: str, options: dict[str, Any]) -> Callable[[], TextEnv]:
    return lambda: TextEnv(task, **options)


def action_batches(space: TokenSpace, eos: int) -> list[np.ndarray[Any, Any]]:
    """Return allowed tokens for all steps, one in five the end of the text."""
    space.seed(SEED)
    rng = np.random.default_rng(SEED)
    return [np.array([eos if rng.random() < 0.2 else space.sample() for _ in range(N)], np.int64) for _ in range(STEPS)]


def actions_for(task: str, options: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    env = TextEnv(task, **options)
    assert isinstance(env.action_space, TokenSpace)
    return action_batches(env.action_space, min(env.mdp.vocabulary.eos_ids))


@settings
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_vector_environment_is_gymnasiums_own_over_single_ones(task: str, options: dict[str, Any], mode: AutoresetMode) -> None:
    ours = gym.make_vec(f"textgym/{task}", num_envs=N, autoreset_mode=mode, **options)
    singles = SyncVectorEnv([single_env(task, options)] * N, autoreset_mode=mode)
    assert ours.single_observation_space == singles.single_observation_space
    assert ours.observation_space == singles.observation_space
    assert ours.metadata["autoreset_mode"] == mode
    expected, got = singles.reset(seed=SEED), ours.reset(seed=SEED)
    assert data_equivalence(got, expected, exact=True)
    ends = 0
    for t, actions in enumerate(actions_for(task, options)):
        expected_step, step = singles.step(actions), ours.step(actions)
        for name, one, other in zip(("observation", "reward", "terminated", "truncated"), step, expected_step, strict=False):
            assert data_equivalence(one, other, exact=True), f"{name} at step {t}"
        check_infos(step[4], expected_step[4])
        assert step[0] in ours.observation_space
        assert not step[3].any()
        ends += int(step[2].sum())
    assert ends > N  # episodes ended, and ended again after the reset


def check_infos(got: Any, expected: Any) -> None:
    """Compare nested infos: equal keys, equal arrays, object arrays by element."""
    if isinstance(expected, dict):
        assert isinstance(got, dict)
        assert sorted(got) == sorted(expected)
        for key in expected:
            check_infos(got[key], expected[key])
    elif isinstance(expected, np.ndarray) and expected.dtype == object:
        assert got.shape == expected.shape
        for one, other in zip(got, expected, strict=True):
            check_infos(one, other)
    else:
        np.testing.assert_array_equal(got, expected)


@settings
def test_the_stable_baselines3_environment_is_its_own_over_single_ones(task: str, options: dict[str, Any]) -> None:
    ours = make_vec_env(f"textgym/{task}", n_envs=N, seed=SEED, monitor=False, **options)
    singles = DummyVecEnv([single_env(task, options)] * N)
    singles.seed(SEED)
    assert ours.observation_space == singles.observation_space
    check_infos(ours.reset(), dict(singles.reset()))  # type: ignore[arg-type]
    for actions in actions_for(task, options):
        expected, got = singles.step(actions), ours.step(actions)
        check_infos(got[0], dict(expected[0]))  # type: ignore[arg-type]
        assert got[1].dtype == np.float32
        np.testing.assert_array_equal(got[1], expected[1])
        np.testing.assert_array_equal(got[2], expected[2])
        for row in range(N):
            if expected[2][row]:
                check_infos(got[3][row], expected[3][row])
            else:
                assert got[3][row] == {}


@settings
def test_rows_of_the_vector_environment_are_single_environments_with_seeds_in_a_row(task: str, options: dict[str, Any]) -> None:
    singles = [TextEnv(task, **options) for _ in range(N)]
    ours = gym.make_vec(f"textgym/{task}", num_envs=N, **options)
    first, _ = ours.reset(seed=SEED)
    starts = [env.reset(seed=SEED + i)[0] for i, env in enumerate(singles)]
    for row, start in enumerate(starts):
        for key in start:
            np.testing.assert_array_equal(first[key][row], start[key])
    over = [False] * N
    for actions in actions_for(task, options):
        observations, rewards, terminated, _, infos = ours.step(actions)
        for row, env in enumerate(singles):
            if over[row]:
                (observation, info), reward, over[row] = env.reset(), 0.0, False
            else:
                observation, reward, over[row], _, info = env.step(actions[row])
            assert rewards[row] == reward
            assert terminated[row] == over[row]
            for key in observation:
                np.testing.assert_array_equal(observations[key][row], observation[key])
            if over[row]:
                assert infos["continuation"][row] == info["continuation"]
                assert infos["finish_reason"][row] == info["finish_reason"]
                assert {name: values[row] for name, values in infos["reward_terms"].items() if name[0] != "_"} == info["reward_terms"]


def test_rows_are_reset_by_hand_where_autoreset_is_off() -> None:
    envs = gym.make_vec("textgym/CopyToken-v0", num_envs=2, autoreset_mode=AutoresetMode.DISABLED, max_new_tokens=2)
    before, _ = envs.reset(seed=0)
    _, _, terminated, _, _ = envs.step(np.array([1, 4]))
    assert terminated.tolist() == [True, False]
    with pytest.raises(textgym.InvalidArgumentError, match="step before reset"):
        envs.step(np.array([4, 4]))
    after, _ = envs.reset(options={"reset_mask": terminated})
    assert after["attention_mask"].sum(1).tolist() == [2, 3]
    assert after["input_ids"][1].tolist()[:3] == [*before["input_ids"][1].tolist()[:2], 4]


def test_the_reward_is_asked_once_per_step_for_all_rows_that_ended() -> None:
    batches: list[int] = []

    def counting(episodes: Sequence[textgym.Episode]) -> list[float]:
        batches.append(len(episodes))
        return [0.0 for _ in episodes]

    envs = gym.make_vec("textgym/CopyToken-v0", num_envs=4, autoreset_mode=AutoresetMode.SAME_STEP, max_new_tokens=2, reward=counting)
    envs.reset(seed=0)
    envs.step(np.array([1, 4, 4, 1]))
    envs.step(np.array([4, 4, 4, 4]))
    assert batches == [2, 2]


def arrays_in(value: Any) -> list[np.ndarray[Any, Any]]:
    """Return every numeric array in nested dictionaries and lists."""
    if isinstance(value, dict):
        return [array for item in value.values() for array in arrays_in(item)]
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [array for item in value for array in arrays_in(item)]
    return [value] if isinstance(value, np.ndarray) else []


@pytest.mark.parametrize("face", ["single", "next step", "same step", "stable-baselines3"])
def test_nothing_returned_is_ever_changed_or_shared(face: str) -> None:
    options = {"max_new_tokens": 2}
    if face == "single":
        env: Any = TextEnv("CopyToken-v0", **options)
    elif face == "stable-baselines3":
        env = make_vec_env("CopyToken-v0", n_envs=3, seed=0, monitor=False, **options)
    else:
        mode = AutoresetMode.NEXT_STEP if face == "next step" else AutoresetMode.SAME_STEP
        env = gym.make_vec("textgym/CopyToken-v0", num_envs=3, autoreset_mode=mode, **options)
    action: Any = 4 if face == "single" else np.array([4, 1, 5])
    returned = [env.reset()]
    for _ in range(2):
        returned.append(env.step(action))
    if face == "single":
        returned.append(env.reset())
    arrays = [arrays_in(value) for value in returned]
    kept = [[array.copy() for array in group] for group in arrays]
    for i, group in enumerate(arrays):
        for later in arrays[i + 1 :]:
            assert not any(np.shares_memory(a, b) for a in group for b in later)
    for group in arrays:  # a user scribbles over all of it
        for array in group:
            array[...] = 1
    fresh = env.reset()
    observation = fresh if face == "stable-baselines3" else fresh[0]
    assert set(np.unique(observation["input_ids"])) <= set(range(11))
    assert observation["attention_mask"].sum() == 2 * (1 if face == "single" else 3)
    assert any(not np.array_equal(a, b) for group, before in zip(arrays, kept, strict=True) for a, b in zip(group, before, strict=True))


def test_seeding_makes_every_face_repeatable() -> None:
    vec = make_vec_env("ReviewContinuation-v0", n_envs=3, seed=5, monitor=False, max_new_tokens=1)
    again = make_vec_env("ReviewContinuation-v0", n_envs=3, seed=5, monitor=False, max_new_tokens=1)
    other = make_vec_env("ReviewContinuation-v0", n_envs=3, seed=6, monitor=False, max_new_tokens=1)
    first: Any = vec.reset()
    np.testing.assert_array_equal(first["input_ids"], again.reset()["input_ids"])  # type: ignore[index,call-overload]
    shifted: Any = other.reset()
    np.testing.assert_array_equal(first["input_ids"][1:], shifted["input_ids"][:2])
    assert len({tuple(row) for row in first["input_ids"].tolist()}) == 3


def test_monitored_environments_record_returns_and_lengths() -> None:
    vec = make_vec_env("CopyToken-v0", n_envs=2, seed=0, max_new_tokens=3, reward="length")
    vec.reset()
    vec.step(np.array([4, 4]))
    _, _, dones, infos = vec.step(np.array([4, 1]))
    assert dones.tolist() == [False, True]
    assert infos[1]["episode"]["l"] == 2
    assert infos[1]["episode"]["r"] == pytest.approx(infos[1]["reward_terms"]["length"])


def test_prompts_are_chosen_the_same_way_in_every_face() -> None:
    vector = gym.make_vec("textgym/CopyToken-v0", num_envs=3)
    single = TextEnv("CopyToken-v0")
    rows = make_vec_env("textgym/CopyToken-v0", n_envs=3)
    vector.reset(seed=0)
    expected = [single.reset(options={"prompt_index": i})[0]["input_ids"] for i in (5, 0, 63)]
    observation, _ = vector.reset(options={"prompt_index": [5, 0, 63]})
    np.testing.assert_array_equal(observation["input_ids"], expected)
    rows.set_options([{"prompt_index": i} for i in (5, 0, 63)])
    np.testing.assert_array_equal(rows.reset()["input_ids"], expected)
    observation, _ = vector.reset(options={"prompt_index": 63, "reset_mask": np.array([True, False, False])})
    np.testing.assert_array_equal(observation["input_ids"], [expected[2], expected[1], expected[2]])
    with pytest.raises(textgym.InvalidArgumentError, match="expected one prompt_index or 3, got 2"):
        vector.reset(options={"prompt_index": [1, 2]})
