"""DQN and soft Q-learning: targets by hand, fixed point at the exact solution, learnt values against dynamic programming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from textgym_plugins.token_chain import HORIZON, mean_reward

import textgym
from tests.agents.dynamic_programming import learnt_q, one_token_texts, optimal_values, value
from textgym.agent import Agent
from textgym.experiments.evaluate import evaluate
from textgym.learning.micro_batches import micro_batches
from textgym.learning.path_targets import path_targets

ALPHA = 0.2


def make(name, task="TokenChain", **settings):
    return textgym.make_agent(name, task, seed=0, kl_coef=0.0, device="cpu", **settings)


def test_path_targets_by_hand():
    r, v, a, gamma, lam = np.array([0.1, 0.2, 1.0]), np.array([0.5, 0.7, 0.4]), np.array([-0.1, 0.0, -0.3]), 0.9, 0.5
    y3 = 1.0
    y2 = 0.2 + gamma * (0.4 + lam * (y3 - (0.4 - 0.3)))
    y1 = 0.1 + gamma * (0.7 + lam * (y2 - 0.7))
    np.testing.assert_allclose(path_targets(r, v, a, gamma, lam), [y1, y2, y3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(path_targets(r, v, a, gamma, 0.0), [0.1 + gamma * 0.7, 0.2 + gamma * 0.4, 1.0], atol=1e-12)
    np.testing.assert_allclose(path_targets(r, v, 0 * a, 1.0, 1.0), [1.3, 1.2, 1.0], atol=1e-12)  # the returns


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_the_exact_solution_is_the_fixed_point_for_any_text(alpha, lam):
    optimum = optimal_values(alpha)
    for prompt in [p for p in optimum if len(p) == 2]:
        for tokens in [("a", "b", "c"), ("c", "c", "c"), ("b", "<eos>"), ("<eos>",)]:  # of no policy in particular
            prefixes = [(*prompt, *tokens[:t]) for t in range(len(tokens))]
            q = np.array([optimum[p][t] for p, t in zip(prefixes, tokens, strict=True)])
            v = np.array([value(optimum[p], alpha) for p in prefixes])
            rewards = np.zeros(len(tokens))
            rewards[-1] = mean_reward(prompt, [t for t in tokens if t != "<eos>"])
            np.testing.assert_allclose(path_targets(rewards, v, q - v, 1.0, lam), q, rtol=0, atol=1e-12)
    assert HORIZON == 3


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("name", ["dqn", "soft-q"])
def test_loss_and_gradient_by_hand(name, share):
    agent = make(name, path_lambda=0.7, gamma=0.9, n_envs=8, value_gradient=share)
    with torch.no_grad():
        for p in [*agent.policy.parameters(), *agent.target.parameters()]:
            p.add_(0.1 * torch.randn_like(p))
    texts = agent.write_groups()
    losses = list(agent.losses(texts))
    sum(loss for loss, _ in losses).backward()
    ours = [p.grad.clone() for p in agent.policy.parameters()]
    agent.policy.zero_grad()

    def outputs(policy, ids):  # one pass per prefix, no packing, no rule: softmax over the four allowed tokens
        hidden = policy.lm.model.base_model(input_ids=ids[None]).last_hidden_state[0, -1]
        logits = policy.lm.logits(hidden).masked_fill(~policy.allowed, -torch.inf)
        return policy.value_head(hidden if share else hidden.detach())[0], logits

    total = 0.0
    for t in texts:
        ids, n = torch.from_numpy(np.concatenate([t.prompt_ids, t.action_ids])), len(t.prompt_ids)
        q, v_target, q_target = [], [], []
        for step, action in enumerate(t.action_ids.tolist()):
            v, logits = outputs(agent.policy, ids[: n + step])
            with torch.no_grad():
                vt, lt = outputs(agent.target, ids[: n + step])
            if name == "soft-q":
                q.append(v + agent.alpha * logits.log_softmax(-1)[action])
                v_target.append(vt)
                q_target.append(vt + agent.alpha * lt.log_softmax(-1)[action])
            else:
                q.append(v + agent.beta * (logits[action] - logits.max()))
                v_target.append(vt + agent.beta * (lt[logits.argmax()] - lt.max()))
                q_target.append(vt + agent.beta * (lt[action] - lt.max()))
        correction = torch.tensor(0.0)
        for step in reversed(range(len(q))):
            after = v_target[step + 1] if step + 1 < len(q) else torch.tensor(0.0)
            correction = t.rewards[step] + 0.9 * after - q_target[step] + 0.9 * 0.7 * correction
            total = total + 0.5 * (q[step] - (q_target[step] + correction).detach()) ** 2
    total = total / sum(len(t.action_ids) for t in texts)
    total.backward()
    assert abs(total.item() - sum(loss.item() for loss, _ in losses)) < 1e-5
    for grad, p in zip(ours, agent.policy.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=0, atol=1e-5)


def test_soft_q_is_a_softmax_with_v_as_its_log_sum_exp():
    agent = make("soft-q", alpha=ALPHA)
    optimum = optimal_values(ALPHA)
    q = learnt_q(agent, optimum)
    texts, keys = one_token_texts(agent, optimum)
    (batch,) = micro_batches(texts, 10**6, agent.device)
    values, _ = agent.q_of_tokens(batch)
    for (prefix, _), v in zip(keys, values.tolist(), strict=True):
        assert abs(value({t: q[prefix, t] for t in optimum[prefix]}, ALPHA) - v) < 1e-5


def test_soft_q_starts_as_the_language_model_and_refuses_two_coefficients():
    agent = textgym.make_agent("soft-q", "ReviewContinuation", n_envs=4, device="cpu", max_new_tokens=6)
    base = textgym.make_agent("base", "ReviewContinuation", n_envs=4, device="cpu", max_new_tokens=6)
    assert agent.generate(["The movie", "It"], seed=1) == base.generate(["The movie", "It"], seed=1)
    texts = agent.write_groups()
    (batch,) = micro_batches(texts, 10**6, agent.device)
    values, advantages = agent.q_of_tokens(batch)
    assert (values == 0).all()
    assert (advantages - agent.alpha * torch.from_numpy(np.concatenate([t.log_probs for t in texts]))).abs().max() < 1e-5
    with pytest.raises(textgym.InvalidArgumentError, match="alpha is the coefficient of the KL"):
        textgym.make_agent("soft-q", "ReviewContinuation", kl_coef=0.1)


def test_the_reference_model_is_in_the_rewards():
    """With its log-probabilities in the rewards, the log-ratios of path consistency are left: at first 0, so only the task's reward is news."""
    agent = textgym.make_agent("soft-q", "ReviewContinuation", n_envs=4, device="cpu", max_new_tokens=6, path_lambda=0.0, seed=0)
    texts = agent.write_groups()
    rewards, kl = agent.rewards_to_keep(texts)
    for t, kept, theirs in zip(texts, rewards, agent.reference_log_probs(texts), strict=True):
        np.testing.assert_allclose(kept, t.rewards + 0.1 * theirs, rtol=0, atol=1e-6)
    assert abs(kl) < 1e-5
    (batch,) = micro_batches(texts, 10**6, agent.device)
    with torch.no_grad():
        kept_texts = [replace(t, rewards=r) for t, r in zip(texts, rewards, strict=True)]
        news = agent.targets(batch, kept_texts, *agent.target_values(batch)) - sum(agent.q_of_tokens(batch))
    np.testing.assert_allclose(news.numpy(), np.concatenate([t.rewards for t in texts]), rtol=0, atol=1e-5)


def test_the_values_own_rate_and_no_gradient_into_a_trained_model():
    agent = textgym.make_agent("soft-q", "ReviewContinuation", n_envs=4, device="cpu", max_new_tokens=4)
    assert agent.value_gradient == 0
    assert make("soft-q").value_gradient == 1  # no weights yet
    before = agent.policy.value_head.bias.clone()
    agent.learn(1)
    lm, head = agent.policy.optimizer.param_groups
    assert head["lr"] == 10 * lm["lr"] == 10 * agent.optimisation.learning_rate
    assert {id(p) for p in head["params"]} == {id(p) for p in agent.policy.value_head.parameters()}
    assert (agent.policy.value_head.bias != before).all()
    with pytest.raises(textgym.InvalidArgumentError, match="greater than 0, got 0"):
        make("soft-q", value_lr_scale=0)


@pytest.mark.parametrize("setting", [{"value_gradient": 1.5}, {"tau": 2.0}, {"path_lambda": -1.0}, {"updates": 0}, {"replay_size": 0}])
def test_bad_settings_are_one_line(setting):
    with pytest.raises(textgym.InvalidArgumentError):
        make("dqn", **setting)


@pytest.mark.slow
def test_dqn_explores_by_its_own_values():
    """The untrained tied weights say the last token already when greedy; what explores does not."""
    agent = make("dqn", "CopyToken", learning_rate=3e-3)

    def share(written):
        return np.mean([t.rewards.sum() for t in written])

    indices = range(agent.env.mdp.n_prompts)
    assert share(Agent.write(agent, agent.env.mdp, indices, np.random.default_rng(1))) < 0.5
    agent.learn(5_000)
    assert share(Agent.write(agent, agent.env.mdp, indices, np.random.default_rng(1))) >= 0.95
    assert share(agent.write(agent.env.mdp, indices, None)) >= 0.95


@pytest.mark.parametrize("name", ["dqn", "soft-q", "sac"])
def test_a_model_that_began_without_weights_is_resumed_exactly(name, tmp_path):
    agent = textgym.make_agent(name, "CopyToken", seed=0, n_envs=4, updates=2, learning_rate=3e-3, device="cpu")
    assert agent.value_gradient == 1
    agent.learn(16)
    agent.save(tmp_path / "agent", training_state=True)
    agent.learn(16)
    resumed = textgym.load_agent(tmp_path / "agent")
    assert resumed.value_gradient == 1
    resumed.learn(16)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(agent.policy.parameters(), resumed.policy.parameters(), strict=True))
    assert textgym.load_agent(tmp_path / "agent", value_gradient=0.5).value_gradient == 0.5


def test_a_top_k_bounds_what_dqn_writes_and_not_its_targets():
    agent, whole = (make("dqn", n_envs=4, top_k=top_k) for top_k in (1, 0))
    for each in (agent, whole):
        torch.manual_seed(1)
        with torch.no_grad():  # so that policy and target find other tokens best
            for p in [*each.policy.parameters(), *each.target.parameters()]:
                p.add_(0.3 * torch.randn_like(p))
    (batch,) = micro_batches(whole.write_groups(), 10**6, agent.device)
    found = [torch.stack([*each.q_of_tokens(batch), *each.target_values(batch)]) for each in (agent, whole)]
    assert (agent._best_tokens != agent.hidden_and_logits(agent.target, batch)[1].argmax(-1)).any()
    torch.testing.assert_close(*found)
    assert found[0].abs().max() < 100


def test_what_dqn_writes_has_the_kl_of_a_greedy_policy():
    """Its softmax, which never writes in evaluation, would be as near to the reference as it likes."""
    agent = make("dqn", "ReviewContinuation", n_envs=4)
    found = evaluate(agent, "validation", n_prompts=8, seed=0, reference=agent.reference)
    assert found.kl == pytest.approx(np.log(found.perplexity))
    assert found.kl > 0.5
