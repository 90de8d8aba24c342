"""How episodes begin, end and are reported; which tokens may be chosen; stop and resume; and bad input."""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym.envs.build import build_mdp
from textgym.envs.env import TextEnv
from textgym.envs.sb3_vec_env import TextVecEnv, make_vec_env
from textgym.envs.vector_env import TextVectorEnv
from textgym.tokenization import load_vocabulary

EOS = 1  # of "copy-token"; its symbols "a".."h" are 3..10


def play(env: TextEnv, tokens: list[int], **reset: Any) -> list[tuple[Any, float, bool, bool, dict[str, Any]]]:
    """Reset, then choose the tokens until the episode ends."""
    env.reset(**reset)
    steps = []
    for token in tokens:
        steps.append(env.step(token))
        if steps[-1][2]:
            break
    return steps


def length(episodes: list[textgym.Episode]) -> list[float]:
    return [float(len(e.continuation_ids)) for e in episodes]


# --- ends -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "reason", "continuation"),
    [
        ([3, 4, EOS], "stop", " a b"),
        ([EOS], "stop", ""),
        ([3, 4, 5, 6], "length", " a b c d"),
        ([3, 4, 5, EOS], "stop", " a b c"),  # the last token of the budget is the end of the text
    ],
)
def test_an_episode_terminates_at_the_end_of_the_text_or_of_the_budget(tokens: list[int], reason: str, continuation: str) -> None:
    env = TextEnv("CopyToken-v0", max_new_tokens=4, reward=length)
    steps = play(env, [*tokens, 7, 7, 7], options={"prompt_index": 10})
    assert len(steps) == len(tokens)
    assert [step[2] for step in steps] == [False] * (len(tokens) - 1) + [True]
    assert not any(step[3] for step in steps)
    assert [step[1] for step in steps] == [0.0] * (len(tokens) - 1) + [float(len(tokens))]
    assert all(step[4] == {} for step in steps[:-1])
    assert steps[-1][4] == {
        "prompt": "b c",
        "continuation": continuation,
        "finish_reason": reason,
        "reward_terms": {"length": float(len(tokens))},
    }
    assert json.loads(json.dumps(steps[-1][4])) == steps[-1][4]  # plain data
    observation = steps[-1][0]
    assert observation["input_ids"].tolist() == [4, 5, *tokens, *[0] * (4 - len(tokens))]
    assert observation["attention_mask"].tolist() == [1] * (2 + len(tokens)) + [0] * (4 - len(tokens))


def test_no_environment_ever_truncates() -> None:
    env = gym.make("textgym/CopyToken-v0", max_new_tokens=6)
    env.action_space.seed(0)
    reasons = set()
    for episode in range(30):
        env.reset(seed=episode)
        terminated = False
        while not terminated:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            assert not truncated
        reasons.add(info["finish_reason"])
    assert reasons == {"stop", "length"}


def test_the_reward_model_sees_the_whole_episode() -> None:
    seen: list[textgym.Episode] = []

    def keeping(episodes: list[textgym.Episode]) -> list[float]:
        seen.extend(episodes)
        return [0.0 for _ in episodes]

    prompts = [textgym.Prompt("a b", references=("a b c",), metadata={"id": 7})]
    task = textgym.Task("Kept-v0", {"train": prompts}, "copy-token", 2, keeping)
    play(TextEnv(task), [5, EOS], seed=0)
    assert seen == [textgym.Episode("a b", " c", (3, 4), (5, EOS), ("a b c",), "stop", {"id": 7})]


@pytest.mark.parametrize(
    ("stop", "text", "steps", "continuation"),
    [
        ((" d",), " c d e f", 2, " c"),
        (("d e",), " c d e f", 3, " c "),
        (("f", "c"), " c d e f", 1, " "),
        (("zz",), " c d e f", 4, " c d e f"),
    ],
)
def test_a_stop_string_ends_the_episode_and_is_cut_off(stop: tuple[str, ...], text: str, steps: int, continuation: str) -> None:
    task = textgym.Task("Stops-v0", {"train": ["a b"]}, "copy-token", 4, length, stop=stop)
    played = play(TextEnv(task), load_vocabulary("copy-token").encode([text])[0], seed=0)
    assert len(played) == steps
    assert played[-1][4]["continuation"] == continuation
    assert played[-1][4]["finish_reason"] == ("length" if stop == ("zz",) else "stop")


@pytest.mark.parametrize(
    ("stop", "text", "continuation"),
    [
        (" was", " was a delight", ""),  # at the very start, where decoding alone would lose the space
        (".", " was good. And more", " was good"),
        ("good. And", " was good. And more", " was "),
        ("→" * 6, " a" + "→" * 9, " a"),  # many tokens per character
        ("", " was", " was"),
    ],
)
def test_stop_strings_of_a_byte_level_tokenizer(stop: str, text: str, continuation: str) -> None:
    vocabulary = load_vocabulary("reviews")
    tokens = vocabulary.encode(["The movie" + text])[0][len(vocabulary.encode(["The movie"])[0]) :]
    task = textgym.Task("Stops-v0", {"train": ["The movie"]}, "reviews", len(tokens) + 1, length, stop=(stop,) if stop else ())
    env = TextEnv(task)
    played = play(env, tokens, seed=0)
    if stop:
        assert played[-1][2]
        assert played[-1][4]["continuation"] == continuation
        assert played[-1][4]["finish_reason"] == "stop"
        assert len(played) < len(tokens)
    else:
        assert not played[-1][2]
        assert env.mdp.row_text(0) == ("The movie", text)


# --- starts -----------------------------------------------------------------------------------------------------------------------


def test_every_prompt_is_drawn_and_splits_are_kept_apart() -> None:
    task = textgym.Task("Splits-v0", {"train": ["a", "b", "c"], "test": ["d e f"]}, "copy-token", 1, "length")
    env, test = TextEnv(task), TextEnv(task, split="test")
    assert env.observation_space == test.observation_space  # one shape for all splits
    env.reset(seed=0)
    drawn = {env.mdp.row_text(0)[0] for _ in range(60) if env.reset()}
    assert drawn == {"a", "b", "c"}
    test.reset(seed=0)
    assert test.mdp.row_text(0) == ("d e f", "")
    env.reset(options={"prompt_index": 2})
    assert env.mdp.row_text(0)[0] == "c"


def test_a_prompt_of_no_token_begins_with_the_end_of_text_token() -> None:
    task = textgym.Task("Empty-v0", {"train": [""]}, "copy-token", 2, "length")
    env = TextEnv(task)
    observation, _ = env.reset(seed=0)
    assert observation["input_ids"][0] == EOS
    assert observation["attention_mask"].tolist() == [1, 0, 0]
    assert play(env, [4, EOS], seed=0)[-1][4]["prompt"] == ""


# --- allowed tokens ---------------------------------------------------------------------------------------------------------------


def test_special_tokens_other_than_the_end_may_not_be_chosen() -> None:
    env = TextEnv("CopyToken-v0")
    assert env.action_space.n == 11  # type: ignore[attr-defined]
    assert np.flatnonzero(env.action_masks()).tolist() == [EOS, *range(3, 11)]
    env.action_space.seed(0)
    assert {int(env.action_space.sample()) for _ in range(300)} == {EOS, *range(3, 11)}


def test_a_task_can_cut_the_tokens_down() -> None:
    task = textgym.Task("Few-v0", {"train": ["a"]}, "copy-token", 2, "length", allowed_tokens=("b", "d"))
    env = TextEnv(task)
    assert np.flatnonzero(env.action_masks()).tolist() == [EOS, 4, 6]
    env.action_space.seed(0)
    assert {int(env.action_space.sample()) for _ in range(100)} == {EOS, 4, 6}
    narrow = np.zeros(11, np.int8)
    narrow[[0, 3, 6]] = 1
    assert {int(env.action_space.sample(mask=narrow)) for _ in range(20)} == {6}
    assert env.action_space != TextEnv("CopyToken-v0").action_space
    for envs in (TextVectorEnv(task, num_envs=3), TextVecEnv(task, n_envs=3)):
        assert envs.action_masks().shape == (3, 11)
        assert np.flatnonzero(envs.action_masks()[2]).tolist() == [EOS, 4, 6]
    assert [np.flatnonzero(mask).tolist() for mask in TextVecEnv(task, n_envs=2).env_method("action_masks")] == [[EOS, 4, 6]] * 2


def test_samples_of_the_vector_action_space_are_allowed_tokens() -> None:
    task = textgym.Task("Few-v0", {"train": ["a"]}, "copy-token", 2, "length", allowed_tokens=("b", "d"))
    envs = TextVectorEnv(task, num_envs=3)
    envs.action_space.seed(0)
    samples = np.array([envs.action_space.sample() for _ in range(60)])
    assert samples.shape == (60, 3)
    assert set(samples.ravel().tolist()) == {EOS, 4, 6}
    assert all(sample in envs.action_space for sample in samples)


def test_tokens_the_model_suppresses_may_not_be_chosen() -> None:
    vocabulary = load_vocabulary("reviews")
    suppressed = vocabulary.tokenizer.pad_token_id
    assert not vocabulary.allowed_mask[suppressed]
    assert vocabulary.allowed_mask[list(vocabulary.eos_ids)].all()
    assert 1000 < vocabulary.allowed_mask.sum() < vocabulary.size
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.allowed_mask[suppressed] = True


# --- stop and resume --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", ["copied", "dense"])
def test_a_restored_state_goes_on_identically(reward: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 4, "reward": _Growing() if reward == "dense" else "copied"}
    rng = np.random.default_rng(0)
    plan = [rng.choice([EOS, 3, 4, 5, 6], 3).astype(np.int64) for _ in range(40)]
    first, second = (make_vec_env("CopyToken-v0", n_envs=3, seed=seed, monitor=False, **options) for seed in (1, 2))
    first.reset()
    second.reset()
    for actions in plan[:7]:
        first.step(actions)
    first.step(np.array([EOS, EOS, EOS]))
    first.step(np.array([EOS, 4, 4]))
    first.step(np.array([3, EOS, 5]))  # now 1, 0 and 2 tokens into an episode
    state = json.loads(json.dumps(first.mdp.state()))  # type: ignore[attr-defined]
    assert np.subtract(state["length"], state["prompt_length"]).tolist() == [1, 0, 2]
    second.mdp.load_state(state)  # type: ignore[attr-defined]
    assert second.mdp.state() == state  # type: ignore[attr-defined]
    for actions in plan[7:]:
        one, other = first.step(actions), second.step(actions)
        for key in one[0]:  # type: ignore[union-attr]
            np.testing.assert_array_equal(one[0][key], other[0][key])  # type: ignore[index,call-overload]
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])
        for mine, theirs in zip(one[3], other[3], strict=True):
            assert {k: v for k, v in mine.items() if k != "terminal_observation"} == {
                k: v for k, v in theirs.items() if k != "terminal_observation"
            }


class _Growing:
    """Pays the n-th token of an episode n."""

    name = "growing"
    age: Any

    def score(self, episodes: Any) -> list[float]:
        return [0.0 for _ in episodes]

    def token_scorer(self, n_rows: int, vocabulary: Any) -> "_Growing":
        scorer = _Growing()
        scorer.age = np.zeros(n_rows)
        return scorer

    def start(self, rows: Any, prompts: Any) -> None:
        self.age[list(rows)] = 0

    def step(self, rows: Any, token_ids: Any) -> Any:
        self.age[list(rows)] += 1
        return self.age[list(rows)]


# --- bad input --------------------------------------------------------------------------------------------------------------------

LONG = textgym.Task("Long-v0", {"train": ["a b c d e f g h"]}, "copy-token", 1, "length")
STRANGE = textgym.Task("Strange-v0", {"train": ["a"]}, "copy-token", 1, "length", allowed_tokens=("zebra",))
REWARDLESS = textgym.Task("Rewardless-v0", {"train": ["a"]}, "copy-token", 1)
PROMPTLESS = textgym.Task("Promptless-v0", {"train": []}, "copy-token", 1, "length")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("CopyToken-v0", {"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, got 0"),
        ("CopyToken-v0", {"max_new_tokens": -3}, "got -3"),
        ("CopyToken-v0", {"max_new_tokens": 1.5}, "got 1.5"),
        ("CopyToken-v0", {"max_new_tokens": True}, "got True"),
        ("CopyToken-v0", {"max_new_tokens": "4"}, "got '4'"),
        ("CopyToken-v0", {"max_new_tokens": 7}, r"exceed the context of model 'copy-token' \(8 tokens\)"),
        ("CopyToken-v0", {"reward": "copyed"}, r"unknown reward 'copyed': did you mean 'copied'\?"),
        ("CopyToken-v0", {"reward": 3}, "a reward is a name, a callable"),
        ("CopyToken-v0", {"model": "copy-tokn"}, r"unknown model 'copy-tokn': did you mean 'copy-token'\?"),
        ("CopyToken-v0", {"split": "trian"}, r"unknown split 'trian': did you mean 'train'\?"),
        ("CopyToken-v0", {"n_words": 3}, "task 'CopyToken-v0' has no option 'n_words': options: none"),
        ("ReviewContinuation-v0", {"n_word": 3}, r"no option 'n_word': did you mean 'n_words'\?"),
        ("ReviewContinuation-v0", {"n_words": 0}, "n_words must be at least 1, got 0"),
        ("CopyTokn-v0", {}, r"unknown task 'CopyTokn-v0': did you mean 'CopyToken-v0'\?"),
        ("CopyToken-v0", {"render_mode": "rgb_array"}, "render_mode"),
        (LONG, {}, r"longest prompt of task 'Long-v0' \(8 tokens\) and max_new_tokens=1 exceed the context"),
        (LONG, {"n_words": 3}, "fit a task given by name"),
        (STRANGE, {}, "allows the token 'zebra', which model 'copy-token' does not have"),
        (REWARDLESS, {}, "task 'Rewardless-v0' has no reward of its own"),
        (PROMPTLESS, {}, "task 'Promptless-v0' has no prompts in its split 'train'"),
    ],
)
@pytest.mark.parametrize("face", [TextEnv, TextVectorEnv, TextVecEnv])
def test_bad_input_is_one_line(face: type, task: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(textgym.TextgymError, match=message) as caught:
        face(task, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", [-1, 64, 10**9, "first", 1.5])
def test_a_prompt_that_does_not_exist_is_one_line(index: Any) -> None:
    env = TextEnv("CopyToken-v0")
    with pytest.raises(textgym.InvalidArgumentError, match="prompt_index") as caught:
        env.reset(seed=0, options={"prompt_index": index})
    assert str(index) in str(caught.value)
    env.reset(options={"prompt_index": np.int64(63)})
    assert env.mdp.row_text(0)[0] == "h h"


@pytest.mark.parametrize(
    ("action", "message"), [(-1, "token id -1 is outside 0..10"), (11, "token id 11 is outside 0..10"), (1.0, "float64"), ("a", "<U1")]
)
def test_an_action_that_is_no_token_is_one_line_and_changes_nothing(action: Any, message: str) -> None:
    env = TextEnv("CopyToken-v0")
    env.reset(seed=0)
    before = env.mdp.observe()
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.mdp.observe()["input_ids"], before["input_ids"])
    assert env.step(EOS)[2]


def test_a_batch_of_the_wrong_size_is_one_line() -> None:
    envs = gym.make_vec("textgym/CopyToken-v0", num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(textgym.InvalidArgumentError, match=r"expected 3 integer token ids, got shape \(2,\)"):
        envs.step(np.array([4, 4]))
    with pytest.raises(textgym.InvalidArgumentError, match="expected 3 seeds, got 2"):
        envs.reset(seed=[0, 1])
    with pytest.raises(textgym.InvalidArgumentError, match="at least 1"):
        gym.make_vec("textgym/CopyToken-v0", num_envs=0)


def test_a_step_before_and_after_an_episode_is_one_line() -> None:
    env = TextEnv("CopyToken-v0")
    with pytest.raises(textgym.InvalidArgumentError, match="step before reset"):
        env.step(4)
    env.reset(seed=0)
    assert env.step(4)[2]
    with pytest.raises(textgym.InvalidArgumentError, match="step before reset"):
        env.step(4)
    vec = TextVecEnv("CopyToken-v0", n_envs=2)
    with pytest.raises(textgym.InvalidArgumentError, match="step before reset"):
        vec.step(np.array([4, 4]))
    vector = TextVectorEnv("CopyToken-v0", num_envs=2)
    with pytest.raises(textgym.InvalidArgumentError, match="step before reset"):
        vector.step(np.array([4, 4]))


def test_a_prompt_that_does_not_exist_changes_nothing() -> None:
    mdp = build_mdp("CopyToken-v0", 2)
    mdp.reset([0, 1], [0, 9])
    with pytest.raises(textgym.InvalidArgumentError, match="prompt_index 64"):
        mdp.reset([0], [64])
    assert [mdp.row_text(row)[0] for row in (0, 1)] == ["a a", "b b"]


@pytest.mark.parametrize("name", ["CopyToken", "CopyToken-v0", "textgym/CopyToken", "textgym/CopyToken-v0"])
def test_short_and_full_names_mean_the_same_task(name: str) -> None:
    assert textgym.make_task(name).name == "CopyToken-v0"
    assert make_vec_env(name, n_envs=1).num_envs == 1
