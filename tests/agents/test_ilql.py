"""ILQL: loss and gradient are trlx's, decoding is the shifted one everywhere, learnt values are those of the data's exact solution."""

from itertools import product

import numpy as np
import pytest
import torch
from textgym_plugins.token_chain import HORIZON, SYMBOLS, mean_reward

import textgym
from tests.agents.dynamic_programming import expectile, values_in_data
from textgym.experiments.evaluate import evaluate
from textgym.learning.micro_batches import micro_batches
from textgym.policies.generation import GeneratedText
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.writing import write_judgements

PROMPTS = ["The movie", "This camera is", "I"]


def make(task="TokenChain", **settings):
    return textgym.make_agent("ilql", task, **{"seed": 0, "device": "cpu", "n_envs": 8, **settings})


def shaken(agent, scale=0.1):
    """Move every weight, the heads' zeros and their lagging copies included."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in agent.policy.parameters():
            weights.add_(scale * torch.randn_like(weights))
    agent.policy.clear_cache()
    return agent


def head_by_hand(head, hidden):
    return torch.relu(hidden @ head.inner.weight.T + head.inner.bias) @ head.output.weight.T + head.output.bias


@pytest.mark.parametrize("path_lambda", [0.0, 0.7])
@pytest.mark.parametrize("batch_size", [1, 1000])
def test_loss_and_gradient_by_hand(path_lambda, batch_size):
    """The formulas of trlx's ILQLConfig.loss, a text at a time; λ > 0 is our addition."""
    gamma, tau, cql, bc, awac = 0.9, 0.7, 0.3, 0.6, 0.4
    agent = shaken(
        make(gamma=gamma, tau=tau, cql_coef=cql, bc_coef=bc, awac_coef=awac, path_lambda=path_lambda, batch_size=batch_size, train_lm=True)
    )
    policy, heads = agent.policy, agent.policy.heads
    texts = [t for t in agent.texts if len(t.action_ids) > 1][:5] + agent.texts[:3]
    for t in texts:
        t.rewards[:] = np.linspace(-0.5, 0.5, len(t.rewards)) + t.rewards  # rewards on the way, too
    losses = list(agent.losses(texts))
    sum(loss for loss, _ in losses).backward()
    ours = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()

    total, n_tokens, signs = 0.0, sum(len(t.action_ids) for t in texts), set()
    for t in texts:
        ids, n = torch.from_numpy(np.concatenate([t.prompt_ids, t.action_ids])), len(t.prompt_ids)
        logits, qs, q_target, v = [], [], [], []
        for step, action in enumerate(t.action_ids.tolist()):
            hidden = policy.lm.model.base_model(input_ids=ids[None, : n + step]).last_hidden_state[0, -1]
            logits.append(policy.lm.logits(hidden).masked_fill(~policy.allowed, -torch.inf))
            qs.append([head_by_hand(head, hidden).masked_fill(~policy.allowed, -torch.inf) for head in heads.q])
            q_target.append(min(head_by_hand(head, hidden)[action].item() for head in heads.target_q))
            v.append(head_by_hand(heads.v, hidden)[0])
        y = 0.0
        for step in reversed(range(len(v))):
            last = step + 1 == len(v)
            v_next = 0.0 if last else v[step + 1].item()
            y = t.rewards[step] + gamma * (v_next + (0.0 if last else path_lambda * (y - q_target[step + 1])))
            action = t.action_ids[step]
            gap = q_target[step] - v[step]
            signs.add(bool(gap >= 0))
            total = total + sum((q[action] - y) ** 2 for q in qs[step])
            total = total + (tau if gap >= 0 else 1 - tau) * gap**2
            total = total + cql * sum(q.logsumexp(-1) - q[action] for q in qs[step])
            total = total - bc * np.exp(awac * gap.item()) * logits[step].log_softmax(-1)[action]
    total = total / n_tokens
    total.backward()
    assert signs == {True, False}
    assert abs(total.item() - sum(loss.item() for loss, _ in losses)) < 1e-5
    theirs = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert set(ours) == set(theirs)
    assert not [name for name in ours if "target" in name or "value_head" in name]
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=0, atol=1e-5)


def test_without_the_conservative_term_the_loss_is_the_same():
    with_all, with_one = [shaken(make(cql_coef=c)) for c in (1e-12, 0.0)]
    sums = [sum(loss for loss, _ in a.losses(a.texts[:6])) for a in (with_all, with_one)]
    torch.testing.assert_close(*sums)


def test_a_step_moves_the_lagging_copies_by_their_share():
    agent = make(polyak=0.25, learning_rate=1e-2)
    before = [p.clone() for p in agent.policy.heads.target_q.parameters()]
    agent.iterate()
    for old, lagging, current in zip(before, agent.policy.heads.target_q.parameters(), agent.policy.heads.q.parameters(), strict=True):
        torch.testing.assert_close(lagging, 0.75 * old + 0.25 * current)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_way_of_writing_is_shifted(temperature, tmp_path):
    """Sampling, log-probabilities in learning, stable-baselines3's calls, generation, and after loading, all by π_lm exp(β Q̂)."""
    agent = shaken(make("ReviewContinuation", beta=2.0, max_new_tokens=6, temperature=temperature), scale=0.02)
    texts = agent.write_groups()
    policy = agent.policy
    (batch,) = micro_batches(texts, 10**6, agent.device)
    hidden = policy.lm.packed_hidden(batch.packed)
    q = torch.minimum(*[head_by_hand(head, hidden) for head in policy.heads.target_q])
    shifted = policy.lm.logits(hidden).log_softmax(-1) + 2.0 * (q - policy._values(hidden)[:, None])
    expected = (shifted / temperature).masked_fill(~policy.allowed, -torch.inf).log_softmax(-1).gather(-1, batch.packed.actions[:, None])
    written = torch.from_numpy(np.concatenate([t.log_probs for t in texts]))
    torch.testing.assert_close(written, expected.squeeze(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(policy.evaluate_actions(batch.packed, batch.packed.actions)[1], expected.squeeze(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        policy.get_distribution(batch.packed).log_prob(batch.packed.actions), expected.squeeze(-1), atol=1e-4, rtol=0
    )
    agent.save(tmp_path / "agent")
    loaded = textgym.load_agent(tmp_path / "agent")
    assert loaded.generate(PROMPTS, seed=3) == agent.generate(PROMPTS, seed=3)
    found = [evaluate(a, "validation", 8, 0).continuations for a in (agent, loaded)]
    assert found[0] == found[1]
    policy.beta = 0.0
    assert agent.generate(PROMPTS, seed=3) != loaded.generate(PROMPTS, seed=3)


def test_it_starts_as_the_language_model():
    agent = make("ReviewContinuation", max_new_tokens=6)
    base = textgym.make_agent("base", "ReviewContinuation", n_envs=4, device="cpu", max_new_tokens=6)
    assert agent.generate(PROMPTS, seed=1) == base.generate(PROMPTS, seed=1)


def test_a_frozen_language_model_stays_as_it_is():
    frozen, trained = make("ReviewContinuation", max_new_tokens=6, train_lm=False), make()
    for agent, moves in ((frozen, False), (trained, True)):
        lm = [p.clone() for p in agent.policy.lm.parameters()]
        head = agent.policy.heads.q[0].output.weight.clone()
        agent.iterate()
        assert any(not torch.equal(a, b) for a, b in zip(lm, agent.policy.lm.parameters(), strict=True)) == moves
        assert not torch.equal(head, agent.policy.heads.q[0].output.weight)


def every_text(path):
    """Write each text of TokenChain once, with its mean reward."""
    items = [
        RatedText(
            id=" ".join((*prompt, *tokens)),
            prompt=" ".join(prompt),
            text=f" {' '.join(tokens)}" if tokens else " <eos>",
            rating=mean_reward(prompt, tokens),
        )
        for prompt in product(SYMBOLS, repeat=2)
        for n in range(HORIZON + 1)
        for tokens in product(SYMBOLS, repeat=n)
    ]
    write_judgements(JudgementSet("ratings", tuple(items)), path)
    return path


def state_error(agent, tau):
    """Return the root mean square error of Q over the data's prefixes and tokens, and the exact values' own deviation."""
    tokenizer = agent.env.mdp.vocabulary.tokenizer

    def words(ids):
        return tuple(tokenizer.convert_ids_to_tokens(list(ids)))

    def ids(words):
        return np.array(tokenizer.convert_tokens_to_ids(list(words)), np.int64)

    exact = values_in_data([(words(t.prompt_ids), words(t.action_ids), float(t.rewards.sum())) for t in agent.texts], tau)
    keys = [(prefix, token) for prefix, q in exact.items() for token in q]
    assert len(keys) == 9 * (1 + 3 + 9) * 4
    texts = [GeneratedText(ids(p), ids([t]), np.zeros(1, np.float32), np.zeros(1), {}) for p, t in keys]
    (batch,) = micro_batches(texts, 10**6, agent.device)
    with torch.no_grad():
        hidden = agent.policy.lm.packed_hidden(batch.packed)
        q = torch.stack([head.of(hidden, batch.packed.actions) for head in agent.policy.heads.q]).mean(0).numpy()
    wanted = np.array([exact[p][t] for p, t in keys])
    return float(np.sqrt(np.mean((q - wanted) ** 2))), float(wanted.std())


def test_expectile_by_hand():
    numbers, weights = np.array([0.0, 1.0]), np.array([3.0, 1.0])
    assert expectile(numbers, weights, 0.5) == pytest.approx(0.25)
    assert expectile(numbers, weights, 0.9) == pytest.approx(0.75)  # 3 · 0.1 · v = 0.9 · (1 − v)


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_values_are_those_of_the_exact_solution(tau, tmp_path):
    data = every_text(tmp_path / "chain.jsonl")
    agent = make(data=data, tau=tau, cql_coef=0.0, bc_coef=0.0, n_envs=60, learning_rate=3e-3, lr_schedule="linear")
    before, deviation = state_error(agent, tau)
    assert before > deviation
    agent.learn(60_000)
    after, _ = state_error(agent, tau)
    print(tau, after, deviation)
    assert after < 0.4 * deviation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "tokens", "gain", "settings"),
    [
        ("ReviewContinuation", 10_000, 0.3, {"n_envs": 32, "beta": 8.0}),
        ("ReviewClassification", 1_500, 0.1, {"n_envs": 32}),
        ("TokenChain", 30_000, 0.15, {"n_envs": 120, "learning_rate": 3e-3, "beta": 16.0, "tau": 0.9, "bc_coef": 0.0}),
    ],
)
def test_it_learns_from_the_shipped_data_to_write_better_than_they_are(task, tokens, gain, settings):
    agent = make(task, **settings)
    behaviour = np.mean([t.rewards.sum() for t in agent.texts])
    start = np.mean(evaluate(agent, "validation", 180, 0).rewards)
    agent.learn(tokens)
    end = np.mean(evaluate(agent, "validation", 180, 0).rewards)
    print(task, behaviour, start, end)
    assert end > max(start, behaviour) + gain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 1.0}, "tau must be between 0 and 1, got 1"),
        ({"polyak": 2.0}, "polyak must be from 0 to 1"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"cql_coef": -1.0}, "cql_coef must be at least 0"),
        ({"kl_coef": 0.1}, "leave kl_coef=0.1 out"),
        ({"data": "nowhere.jsonl"}, "data='nowhere.jsonl' is neither 'references' nor 'offline'"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        make(**settings)


def test_beside_adapters_the_language_model_stays_frozen_and_comes_back_as_saved(tmp_path):
    agent = make("ReviewContinuation", lora_rank=2, max_new_tokens=6, n_envs=4, learning_rate=0.01)
    before = {name: p.clone() for name, p in agent.policy.lm.named_parameters()}
    agent.learn(24)
    moved = {name for name, p in agent.policy.lm.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    agent.save(tmp_path / "agent")
    loaded = textgym.load_agent(tmp_path / "agent")
    assert loaded.generate(PROMPTS, seed=3) == agent.generate(PROMPTS, seed=3)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(agent.policy.lm.parameters(), loaded.policy.lm.parameters(), strict=True))
