"""Replay: constant memory per token, the newest texts kept whole, views instead of copies, exact resume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.learning.replay import TokenReplay
from textgym.policies.generation import GeneratedText


def text(number, n_prompt, n_actions):
    ids = np.full(n_prompt + n_actions, number, np.int64)
    return GeneratedText(ids[:n_prompt], ids[n_prompt:], np.full(n_actions, -number, np.float32), np.full(n_actions, float(number)), {})


@pytest.mark.parametrize("horizon", [4, 64, 1024])
def test_memory_per_token_does_not_depend_on_the_horizon(horizon):
    replay = TokenReplay(8192)
    replay.add([text(i, 1, horizon - 1) for i in range(8192 // horizon)])
    assert replay.n_tokens == 8192
    assert replay.n_bytes == 20 * 8192
    assert all(t.action_ids.base is not None for t in replay.sample(3, np.random.default_rng(0)))  # slices, not copies


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=1, max_size=40))
def test_the_newest_texts_are_whole(sizes):
    replay = TokenReplay(30)
    for number, (n_prompt, n_actions) in enumerate(sizes):
        replay.add([text(number, n_prompt, n_actions)])
        held = [replay.text(i) for i in range(len(replay))]
        assert [int(t.action_ids[0]) for t in held] == list(range(number + 1 - len(held), number + 1))
        for found in held:
            k = int(found.action_ids[0])
            assert (found.prompt_ids == k).all()
            assert (found.action_ids == k).all()
            assert (found.rewards == k).all()
            assert (len(found.prompt_ids), len(found.action_ids)) == sizes[k]
        assert replay.n_tokens <= 30
    again = TokenReplay(30)
    again.load_arrays({k: v.copy() for k, v in replay.arrays().items()})
    replay.add([text(99, 2, 3)])
    again.add([text(99, 2, 3)])
    assert [t.action_ids.tolist() for t in map(again.text, range(len(again)))] == [
        t.action_ids.tolist() for t in map(replay.text, range(len(replay)))
    ]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=30))
def test_groups_come_and_go_together(sizes):
    replay = TokenReplay(30, group_size=2)
    for number, (n_prompt, first, second) in enumerate(sizes):
        replay.add([text(2 * number, n_prompt, first), text(2 * number + 1, n_prompt, second)])
        held = [int(replay.text(i).action_ids[0]) for i in range(len(replay))]
        assert held == list(range(2 * number + 2 - len(held), 2 * number + 2))
        assert len(held) % 2 == 0
        drawn = [int(t.action_ids[0]) for t in replay.sample(3, np.random.default_rng(number))]
        assert [b - a for a, b in zip(drawn[::2], drawn[1::2], strict=True)] == [1, 1, 1]
        assert all(a % 2 == 0 for a in drawn[::2])
    lost = text(7, 1, 1)
    lost.rewards[:] = np.inf
    n = len(replay)
    replay.add([text(6, 1, 1), lost])
    assert len(replay) == n


def test_texts_given_up_are_left_out_and_bad_input_is_one_line():
    replay = TokenReplay(10)
    lost = text(1, 1, 2)
    lost.rewards[-1] = np.nan
    replay.add([lost])
    assert len(replay) == 0
    with pytest.raises(textgym.InvalidArgumentError, match="empty replay"):
        replay.sample(1, np.random.default_rng(0))
    with pytest.raises(textgym.InvalidArgumentError, match="a text of 11 tokens does not fit"):
        replay.add([text(1, 1, 10)])
    for name in ("dpo", "expert-iteration", "soft-q"):
        with pytest.raises(
            textgym.InvalidArgumentError, match=r"replay_size must be at least .* tokens, for . of the longest texts, got 7"
        ):
            textgym.make_agent(name, "ReviewContinuation", n_envs=4, replay_size=7, device="cpu")
