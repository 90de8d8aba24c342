"""NLPO: the mask is a nucleus of the copy, the same in rollout and update, and the copy lags."""

import numpy as np
import pytest
import torch

import textgym
from textgym.policies.nucleus_masked_policy import nucleus


def make(**settings):
    settings = {"n_envs": 4, "n_steps": 10, "batch_size": 40, "n_epochs": 1, "max_new_tokens": 8, "device": "cpu", **settings}
    return textgym.make_agent("nlpo", "ReviewContinuation", **settings)


def test_nucleus_by_hand():
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1], [0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.01, 0.01]]).log()
    assert nucleus(logits, 0.7).tolist() == [[False, True, True, False], [True, True, True, False], [True, False, False, False]]
    assert nucleus(logits, 1e-6).sum(1).tolist() == [1, 1, 1]


def test_first_pass_has_ratio_one_and_every_choice_is_in_the_nucleus():
    agent = make(top_p=0.5, mask_interval=2)
    agent.learn(1)
    seen = agent.logger.name_to_value
    assert seen["train/clip_fraction"] == 0
    assert abs(seen["train/approx_kl"]) < 1e-6
    # the copy has not moved though the policy has: its nucleus is that of the start, in rollout and update
    assert not all(torch.equal(a, b) for a, b in zip(agent.policy.lm.parameters(), agent.policy.mask_lm.parameters(), strict=True))
    buffer = agent.algorithm.rollout_buffer
    agent.algorithm.collect_rollouts(agent.env, _silent(agent), buffer, 10)
    (batch,) = buffer.get(None)
    with torch.no_grad():
        _, log_prob, _ = agent.policy.evaluate_actions(batch.observations, batch.actions)
        allowed = agent.policy._allowed_after(batch.observations, cached=False)
    torch.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-5, rtol=1e-5)
    assert allowed.gather(1, batch.actions[:, None]).all()
    assert allowed.sum(1).float().mean() < agent.policy.allowed.sum() / 2


def test_the_copy_follows_every_few_iterations():
    agent = make(mask_interval=2)
    agent.learn(80)  # two iterations
    assert agent.n_iterations == 2
    assert all(torch.equal(a, b) for a, b in zip(agent.policy.lm.parameters(), agent.policy.mask_lm.parameters(), strict=True))
    trained = {id(p) for group in agent.policy.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in agent.policy.mask_lm.parameters()}


def test_the_copy_is_saved_for_writing(tmp_path):
    agent = make(mask_interval=100, learning_rate=3e-3)
    agent.learn(40)
    agent.save(tmp_path / "agent")
    loaded = textgym.load_agent(tmp_path / "agent")
    assert all(torch.equal(a, b) for a, b in zip(loaded.policy.mask_lm.parameters(), agent.policy.mask_lm.parameters(), strict=True))
    assert loaded.generate(["The movie"] * 8, seed=0) == agent.generate(["The movie"] * 8, seed=0)


@pytest.mark.parametrize(("settings", "message"), [({"top_p": 0.0}, "top_p must be above 0"), ({"mask_interval": 0}, "mask_interval")])
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        make(**settings)


def _silent(agent):
    _, callback = agent.algorithm._setup_learn(1)
    assert np.isfinite(agent.algorithm._last_obs["input_ids"]).all()
    return callback
