"""Generation: continuous batching writes the texts that one-by-one writing does, and reads no token of a text that has ended."""

import numpy as np
import pytest
import torch

from textgym.lm.packing import pack
from textgym.mdp import TokenMDP
from textgym.policies.causal_lm_policy import CausalLMPolicy, no_learning
from textgym.policies.generation import generate, write_rows
from textgym.policies.nucleus_masked_policy import NucleusMaskedPolicy
from textgym.rewards.reward import make_reward
from textgym.sb3 import make_vec_env


def make(task, kind=CausalLMPolicy, may_end=True, **settings):
    env = make_vec_env(task, n_envs=1)
    space = env.action_space
    policy = kind(env.observation_space, space, no_learning, model=task.model, **settings)
    if may_end:
        with torch.no_grad():  # so that texts end after a few tokens, some at once
            policy.lm.output[0].weight[1] *= 2.0
    return policy


def rows_of(task, n_rows, may_end=True):
    mdp = TokenMDP(task, make_vec_env(task, n_envs=1).unwrapped.mdp.vocabulary, make_reward(task.reward), n_rows)
    mdp.allowed_mask[list(mdp.vocabulary.eos_ids)] = may_end
    return mdp


def told(texts):
    return [(t.prompt_ids.tolist(), t.action_ids.tolist(), t.rewards.tolist(), t.info) for t in texts]


PROMPTS = [(5 * i) % 12 for i in range(29)]


@pytest.mark.parametrize("kind", [CausalLMPolicy, NucleusMaskedPolicy])
def test_greedy_and_drawn_texts_are_those_of_one_by_one_generation(task, kind):
    policy = make(task, kind)
    for seed in (None, 0):
        alone, *others = (
            generate(policy, rows_of(task, n), PROMPTS, None if seed is None else np.random.default_rng(seed)) for n in (1, 5, 64)
        )
        for texts in others:
            assert told(texts) == told(alone)
            np.testing.assert_allclose(
                np.concatenate([t.log_probs for t in texts]), np.concatenate([t.log_probs for t in alone]), atol=1e-4
            )
    lengths = {len(t.action_ids) for t in alone}
    assert len(lengths) > 2


def test_log_probs_are_those_of_a_full_pass(task):
    policy = make(task)
    texts = generate(policy, rows_of(task, 6), PROMPTS, np.random.default_rng(3))
    batch = pack([(t.prompt_ids, t.action_ids) for t in texts])
    with torch.no_grad():
        _, log_prob, _ = policy.evaluate_actions(batch, batch.actions)
    np.testing.assert_allclose(np.concatenate([t.log_probs for t in texts]), log_prob, atol=1e-4)


def passes(policy):
    """Count what the trunk reads: (rows, tokens a row) of each pass."""
    found = []
    forward = policy.lm.trunk[0].forward
    policy.lm.trunk[0].forward = lambda *a, **k: (found.append(tuple(k["input_ids"].shape)), forward(*a, **k))[1]
    return found


def test_nothing_is_read_for_texts_that_have_ended_and_rows_are_filled_again(task):
    policy = make(task)
    found = passes(policy)
    texts = generate(policy, rows_of(task, 8), PROMPTS, np.random.default_rng(0))
    decoded = [rows for rows, width in found if width == 1]
    n_tokens = sum(len(t.action_ids) for t in texts)
    single = sum(width == 1 and rows <= 8 for rows, width in found)  # prompts of two tokens are prefilled one token wide, too
    assert sum(decoded) <= n_tokens + sum(len(t.prompt_ids) == 2 for t in texts)
    lengths = np.array([len(t.action_ids) for t in texts])
    one_batch_after_the_other = sum(lengths[i : i + 8].max() for i in range(0, len(lengths), 8))
    assert single < one_batch_after_the_other + sum(len(t.prompt_ids) == 2 for t in texts)


def test_texts_of_equal_length_take_the_passes_they_took(task):
    policy = make(task, may_end=False)
    policy.allowed[1] = False
    found = passes(policy)
    texts = generate(policy, rows_of(task, 4, may_end=False), [3] * 12, np.random.default_rng(0))
    assert {len(t.action_ids) for t in texts} == {9}
    assert len(found) == 3 * (9 + 1)  # a prefill and nine decodes a batch


def test_more_texts_than_rows_side_by_side_are_refused(task):
    from textgym.errors import InvalidArgumentError

    with pytest.raises(InvalidArgumentError, match="do not go side by side"):
        write_rows(rows_of(task, 2), [0, 1, 2], lambda step: (np.zeros(3, np.int64), np.zeros(3, np.float32)))
