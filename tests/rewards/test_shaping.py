"""Potential-based shaping leaves the optimal policy what it was: exact dynamic programming over every episode of a small environment."""

import zlib
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import textgym
from textgym.envs.env import TextEnv
from textgym.rewards import Shaping, make_reward
from textgym.tokenization import load_vocabulary

GAMMA = 0.9
BUDGET = 3
SYMBOLS = ("a", "b", "c")
TASK = textgym.Task("Small-v0", {"train": ["a b"]}, "copy-token", BUDGET, "copied", allowed_tokens=SYMBOLS)
VOCABULARY = load_vocabulary("copy-token")
EOS = min(VOCABULARY.eos_ids)
ACTIONS = (*VOCABULARY.tokenizer.convert_tokens_to_ids(list(SYMBOLS)), EOS)

Path = tuple[int, ...]


def chance(text: str) -> float:
    """Return a number of -1 .. 1 that a text has, like drawn from a hat."""
    return zlib.crc32(text.encode()) % 2001 / 1000 - 1


def lottery(episodes: Sequence[textgym.Episode]) -> list[float]:
    return [chance("task" + e.text) for e in episodes]


def opinion(episodes: Sequence[textgym.Episode]) -> list[float]:
    return [5 * chance("potential" + e.text) for e in episodes]


class Bonus:
    """What shaping must not be: Φ(s') paid at every token, nothing taken back."""

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        return opinion(episodes)

    def token_scorer(self, n_rows: int, vocabulary: Any) -> "Bonus":
        return self

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        self.tokens: list[int] = []

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
        self.tokens += token_ids
        return opinion([textgym.Episode("a b", "".join(map(str, self.tokens)))])


def explore(reward: Any) -> dict[Path, tuple[float, bool]]:
    """Return the reward of every prefix's newest token and whether it ended the episode, by going through all episodes."""
    env = TextEnv(TASK, reward=reward)
    found: dict[Path, tuple[float, bool]] = {}
    for actions in product(ACTIONS, repeat=BUDGET):
        env.reset()
        for step in range(BUDGET):
            _, paid, terminated, _, _ = env.step(actions[step])
            known = found.setdefault(actions[: step + 1], (paid, terminated))
            assert known == pytest.approx((paid, terminated), abs=1e-5)
            if terminated:
                break
    return found


def solve(transitions: dict[Path, tuple[float, bool]], gamma: float) -> tuple[dict[Path, float], dict[Path, int]]:
    """Return V* and the best action of every state that is not an end, by backward induction."""

    @cache
    def value(state: Path, action: int) -> float:
        paid, terminated = transitions[(*state, action)]
        return paid if terminated else paid + gamma * max(value((*state, action), a) for a in ACTIONS)

    states = [()] + [path for path, (_, terminated) in transitions.items() if not terminated]
    return {s: max(value(s, a) for a in ACTIONS) for s in states}, {s: max(ACTIONS, key=lambda a, s=s: value(s, a)) for s in states}


@pytest.fixture(scope="module")
def plain() -> tuple[dict[Path, float], dict[Path, int]]:
    transitions = explore(lottery)
    assert len(transitions) == 4 + 12 + 36  # EOS ends an episode early
    return solve(transitions, GAMMA)


def potential_of(state: Path) -> float:
    text = VOCABULARY.decode_continuations([VOCABULARY.encode(["a b"])[0]], [list(state)])[0]
    return opinion([textgym.Episode("a b", text)])[0]


def test_the_best_policy_stays_and_values_fall_by_the_potential(plain: Any) -> None:
    values, best = plain
    shaped_values, shaped_best = solve(explore({lottery: 1.0, Shaping(opinion, GAMMA): 0.7}), GAMMA)
    assert shaped_best == best
    for state in values:
        assert shaped_values[state] == pytest.approx(values[state] - 0.7 * potential_of(state), abs=1e-9)


def test_a_potential_that_pays_by_the_token_leaves_the_policy_too(plain: Any) -> None:
    torch.manual_seed(0)  # "copy-token" has no weights of its own
    log_prob = make_reward("log-prob", model="copy-token", dense=True)
    values, best = plain
    shaped_values, shaped_best = solve(explore({lottery: 1.0, Shaping(log_prob, GAMMA): 3.0}), GAMMA)
    assert shaped_best == best
    assert shaped_values[()] == pytest.approx(values[()], abs=1e-4)  # Φ(prompt) = 0
    assert max(abs(shaped_values[s] - values[s]) for s in values) > 1.0


def test_the_check_can_fail(plain: Any) -> None:
    """A bonus without the potential taken back changes the policy, and so does shaping with another discount than the learner's."""
    _, best = plain
    assert solve(explore({lottery: 1.0, Bonus(): 1.0}), GAMMA)[1] != best
    assert solve(explore({lottery: 1.0, Shaping(opinion, 0.2): 1.0}), GAMMA)[1] != best


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_discounted_sum_is_minus_the_potential_of_the_prompt(gamma: float) -> None:
    shaping = make_reward(Shaping(opinion, gamma))
    env = TextEnv(TASK, reward=shaping)
    for actions in [(ACTIONS[0],) * 3, (ACTIONS[1], EOS), (EOS,)]:
        env.reset()
        paid = [env.step(a) for a in actions]
        assert paid[-1][2]
        total = sum(gamma**t * step[1] for t, step in enumerate(paid))
        assert total == pytest.approx(-potential_of(()), abs=1e-9)
        info = paid[-1][4]
        assert info["reward_terms"]["Shaping"] == pytest.approx(sum(step[1] for step in paid))
        assert shaping.score([textgym.Episode(info["prompt"], info["continuation"])])[0] == pytest.approx(total, abs=1e-9)


def test_rows_side_by_side_are_shaped_apart() -> None:
    from textgym.sb3 import make_vec_env

    reward = {lottery: 1.0, Shaping(opinion, 0.9): 1.0}
    single = TextEnv(TASK, reward=reward)
    batch = make_vec_env(TASK, n_envs=3, seed=0, reward=reward, monitor=False)
    batch.reset()
    rng = np.random.default_rng(1)
    plans = [[[int(a) for a in rng.choice(ACTIONS[:3], 3)] for _ in range(2)] for _ in range(3)]
    plans[1][0] = [ACTIONS[0], EOS]  # one row ends earlier, so that rows get out of step
    streams = [[action for episode in plan for action in episode] for plan in plans]
    expected: list[list[float]] = []
    for plan in plans:
        paid = []
        for episode in plan:
            single.reset()
            paid += [single.step(action)[1] for action in episode]
        expected.append(paid)
    for step in range(5):
        _, rewards, _, _ = batch.step(np.array([stream[step] for stream in streams]))
        np.testing.assert_allclose(rewards, [paid[step] for paid in expected], atol=1e-6)


def test_a_potential_must_be_a_function_of_the_unfinished_text() -> None:
    class Needy:
        needs_references = True

        def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
            return [0.0 for _ in episodes]

    class Dice(Needy):
        needs_references, deterministic = False, False

    with pytest.raises(textgym.InvalidArgumentError, match="needs reference texts"):
        Shaping(Needy())
    with pytest.raises(textgym.InvalidArgumentError, match="not deterministic"):
        Shaping(Dice())
