"""Behaviour cloning, expert iteration, DPO and the controls: their losses by hand, and what they write."""

from math import log

import numpy as np
import pytest
import torch

import textgym
from tests.agents.dynamic_programming import optimal_values
from textgym.experiments.evaluate import evaluate
from textgym.learning.given_texts import best_share, reference_texts
from textgym.learning.negative_log_likelihood import negative_log_likelihood
from textgym.policies.reference import ReferenceModel


def made(name, task="CopyToken", **settings):
    return textgym.make_agent(name, task, device="cpu", **{"n_envs": 8, **settings})


def log_probs(policy, text):
    """Return the log-probability of every token, one unpacked forward pass per prefix."""
    found = []
    for t, token in enumerate(text.action_ids):
        ids = torch.from_numpy(np.concatenate([text.prompt_ids, text.action_ids[:t]]))[None]
        logits = policy.rule.apply(policy.lm.model(input_ids=ids).logits[:, -1], policy.allowed)
        found.append(logits.log_softmax(-1)[0, token])
    return torch.stack(found)


def gradient(losses, policy):
    policy.optimizer.zero_grad()
    total = 0.0
    for loss, _ in losses:
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def agree(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert (ours[1] - theirs[1]).norm() <= 1e-5 * max(1.0, float(theirs[1].norm()))


def test_behaviour_cloning_loss_by_hand():
    agent = made("bc", "ReviewContinuation", max_new_tokens=6, n_envs=4)
    texts = agent.texts[:5]
    ours = gradient(negative_log_likelihood(agent.policy, texts, batch_size=7), agent.policy)
    by_hand = -torch.cat([log_probs(agent.policy, t) for t in texts]).mean()
    agree(ours, gradient([(by_hand, {})], agent.policy))


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_dpo_loss_by_hand(batch_size):
    agent = made("dpo", "ReviewContinuation", max_new_tokens=5, n_envs=8, beta=0.3, batch_size=batch_size)
    texts = agent.write_groups(4)
    pairs = [(texts[c], texts[r]) for c, r in agent.pairs(texts)]
    assert pairs
    reference = agent.start_log_probs([t for pair in pairs for t in pair])
    with torch.no_grad():
        for weights in agent.policy.lm.parameters():
            weights.add_(0.01 * torch.randn_like(weights))
    agent.policy.clear_cache()
    ours = gradient(agent.losses(pairs, reference), agent.policy)
    margins = []
    for chosen, rejected in pairs:
        gains = [log_probs(agent.policy, t).sum() - log_probs(agent.start, t).sum().detach() for t in (chosen, rejected)]
        margins.append(0.3 * (gains[0] - gains[1]))
    agree(ours, gradient([(torch.log1p(torch.exp(-torch.stack(margins))).mean(), {})], agent.policy))


def test_dpo_at_the_start_has_the_loss_log_2():
    agent = made("dpo", n_envs=16)
    texts = agent.write_groups(4)
    pairs = [(texts[c], texts[r]) for c, r in agent.pairs(texts)]
    reference = agent.start_log_probs([t for pair in pairs for t in pair])
    assert sum(loss.item() for loss, _ in agent.losses(pairs, reference)) == pytest.approx(log(2), abs=1e-6)


def test_dpo_is_judged_against_the_start_it_holds(tmp_path):
    agent = made("dpo", "ReviewContinuation", max_new_tokens=5)
    assert agent.reference.lm is agent.start.lm
    agent.learn(1)
    texts, apart = agent.write_groups(4), ReferenceModel("reviews")
    theirs = apart.log_probs([(t.prompt_ids, t.action_ids) for t in texts], agent.policy.rule, agent.env.mdp.allowed_mask)
    assert (np.concatenate(agent.reference_log_probs(texts)) == theirs).all()
    agent.save(tmp_path / "agent")
    loaded = textgym.load_agent(tmp_path / "agent", n_envs=8)
    assert loaded.reference.lm is not loaded.start.lm  # which begins where the agent is now
    assert (np.concatenate(loaded.reference_log_probs(texts)) == theirs).all()


def test_pairs_and_experts_are_best_and_worst_and_skip_groups_without_difference():
    agent, expert = made("dpo", n_envs=16), made("expert-iteration", n_envs=16)
    texts = agent.write_groups(4)
    totals = np.array([t.rewards.sum() for t in texts]).reshape(-1, 4)
    mixed = int((totals.max(1) > totals.min(1)).sum())
    pairs = [(texts[c], texts[r]) for c, r in agent.pairs(texts)]
    assert len(pairs) == mixed
    assert all(c.rewards.sum() == 1 and r.rewards.sum() == 0 for c, r in pairs)
    experts = expert.experts(texts, totals.ravel())
    assert len(experts) == mixed
    assert all(t.rewards.sum() == 1 for t in experts)
    group = texts[4 * int((totals.max(1) > totals.min(1)).argmax()) :][:4]
    assert expert.experts(group, np.array([np.nan, 1.0, 0.0, np.nan])) == [group[1]]


def test_replayed_pairs_stay_pairs_of_one_prompt_and_keep_their_reference():
    agent = made("dpo", n_envs=16, updates=1, replay_size=200, learning_rate=1e-2)
    for _ in range(6):  # more than it holds
        agent.iterate()
    assert 0 < len(agent.replay) < 100
    texts = agent.replay.sample(40, np.random.default_rng(0))
    for chosen, rejected in zip(texts[::2], texts[1::2], strict=True):
        assert (chosen.prompt_ids == rejected.prompt_ids).all()
        assert chosen.action_ids.tolist() != rejected.action_ids.tolist()
    np.testing.assert_allclose(np.concatenate([t.rewards for t in texts]), np.concatenate(agent.start_log_probs(texts)), rtol=0, atol=1e-5)


def test_given_pairs_need_no_groups_and_no_replay():
    agent = made("dpo", "ReviewContinuation", data="offline", n_envs=2, max_new_tokens=6)
    agent.learn(10)
    assert agent.n_tokens_trained > 0
    with pytest.raises(textgym.InvalidArgumentError, match="replay_size keeps pairs that were written"):
        made("dpo", data="offline", replay_size=1000)
    with pytest.raises(textgym.InvalidArgumentError, match="n_envs must be at least 2 texts, a pair, got 1"):
        made("dpo", data="offline", n_envs=1)


def test_replayed_experts_teach_even_where_no_group_of_an_iteration_differs():
    agent = made("expert-iteration", n_envs=16, updates=3, replay_size=500)
    while not agent.replay:
        agent.iterate()
    agent.experts = lambda texts, scores: []
    before = agent.n_tokens_trained
    agent.iterate()
    assert agent.n_tokens_trained == before + 3 * 4  # one text of one token per group and step


def test_an_expert_is_better_by_the_reward_and_not_by_the_penalty_alone():
    agent = made("expert-iteration", "ReviewContinuation", reward=lambda e: [1.0] * len(e), max_new_tokens=4)
    texts = agent.write_groups(4)
    assert agent.experts(texts, np.linspace(0.0, 0.7, 8)) == []
    agent.iterate()
    assert agent.n_tokens_trained == 0


def test_best_share_keeps_ties():
    texts = reference_texts(made("base").env.mdp)
    assert len(best_share(texts, 0.1)) == len(texts)  # every reference of CopyToken is right


@pytest.mark.slow
def test_best_of_n_picks_by_reward_and_its_kl_is_the_closed_form():
    base, best = made("base", "ReviewContinuation"), made("best-of-n", "ReviewContinuation", n=4)
    reference = ReferenceModel("reviews", "cpu")
    plain = evaluate(base, "validation", 48, 0, reference=reference)
    found = evaluate(best, "validation", 48, 0, reference=reference)
    assert np.mean(found.rewards) > np.mean(plain.rewards) + 0.3
    assert found.kl * found.length == pytest.approx(log(4) - 3 / 4, rel=1e-3)  # nats per text
    assert best.generate(["The movie"], seed=1) != best.generate(["The movie"], seed=2)


def test_oracle_is_right_and_random_is_uniform():
    oracle, random = made("oracle"), made("random")
    assert np.mean(evaluate(oracle, "test", 64, 0).rewards) == 1.0
    assert np.mean([np.mean(evaluate(random, "test", 64, seed).rewards) for seed in range(8)]) < 0.3
    chain = made("oracle", "TokenChain")  # no references, but an expert
    optimum = np.mean([max(q.values()) for prefix, q in optimal_values(0.0).items() if len(prefix) == 2])
    assert np.mean(evaluate(chain, "test", 180, 0).rewards) == pytest.approx(optimum)
    texts = random.write(random.env.mdp, range(8), np.random.default_rng(0))
    assert all(p == pytest.approx(-log(random.env.mdp.allowed_mask.sum())) for t in texts for p in t.log_probs)
    task = textgym.Task("Bare-v0", {"train": ["a b"], "test": ["a b"]}, "copy-token", 1, "copied")
    bare = textgym.make_agent("oracle", task, device="cpu", n_envs=1)
    with pytest.raises(textgym.InvalidArgumentError, match="has no reference to write"):
        evaluate(bare, "test", 1, 0)
    with pytest.raises(textgym.InvalidArgumentError, match="has no references in its split 'train'"):
        textgym.make_agent("bc", task, device="cpu")
