"""Discrete SAC: loss, gradient and temperature by hand, and the language model at the start."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import textgym
from textgym.learning.micro_batches import micro_batches
from textgym.policies.reference import ReferenceModel


def make(task="TokenChain", **settings):
    return textgym.make_agent("sac", task, seed=0, device="cpu", **settings)


def disturb(*modules):
    with torch.no_grad():
        for module in modules:
            for p in module.parameters():
                p.add_(0.1 * torch.randn_like(p))


@pytest.fixture
def start(tmp_path):
    """A tiny model with weights, for a reference model that is one."""
    make().policy.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("with_reference", [False, True])
def test_loss_gradient_and_temperature_by_hand(with_reference, share, start):
    model = {"model": start} if with_reference else {}
    agent = make(gamma=0.9, path_lambda=0.7, n_envs=6, alpha=0.3, value_gradient=share, batch_size=8, **model)
    assert (agent.reference is not None) == with_reference
    disturb(agent.policy, agent.target)
    texts = agent.write_groups()
    losses = list(agent.losses(texts))
    sum(loss for loss, _ in losses).backward()
    ours = {name: None if p.grad is None else p.grad.clone() for name, p in agent.policy.named_parameters()}
    agent.policy.zero_grad()

    def read(policy, ids):  # one pass per prefix, no packing, the critic written out
        hidden = policy.lm.model.base_model(input_ids=ids[None]).last_hidden_state[0, -1]
        log_probs = policy.lm.logits(hidden)[agent.policy.allowed].log_softmax(-1)
        seen = hidden if share else hidden.detach()
        q = []
        for c in policy.critics:
            normal = (seen - seen.mean()) / (seen.var(unbiased=False) + 1e-5).sqrt()
            f = nn.functional.gelu(c.features[1].weight @ normal + c.features[1].bias)
            q.append(c.value.weight[0] @ f + c.value.bias + c.embeddings[agent.policy.allowed] @ (c.token.weight @ f + c.token.bias))
        return log_probs, torch.stack(q)

    places = {token: i for i, token in enumerate(torch.where(agent.policy.allowed)[0].tolist())}
    total, distances = torch.zeros(()), []
    for t in texts:
        ids, n = torch.from_numpy(np.concatenate([t.prompt_ids, t.action_ids])), len(t.prompt_ids)
        chosen, v_target, q_target = [], [], []
        for step, action in enumerate(t.action_ids.tolist()):
            log_probs, q = read(agent.policy, ids[: n + step])
            reference = torch.zeros(4)
            if with_reference:
                with torch.no_grad():
                    last = agent.reference.lm.model(input_ids=ids[None, : n + step]).logits[0, -1]
                reference = last[agent.policy.allowed].log_softmax(-1)
            rho = log_probs - reference
            distances.append((log_probs.exp() * rho).sum().item())
            with torch.no_grad():
                lagging = read(agent.target, ids[: n + step])[1].amin(0)
                v_target.append((log_probs.exp() * (lagging - 0.3 * rho)).sum())
                q_target.append(lagging[places[action]])
            chosen.append(q[:, places[action]])
            total = total + (log_probs.exp() * (0.3 * rho - q.amin(0).detach())).sum()
        correction = torch.tensor(0.0)
        for step in reversed(range(len(chosen))):
            after = v_target[step + 1] if step + 1 < len(chosen) else torch.tensor(0.0)
            correction = t.rewards[step] + 0.9 * after - q_target[step] + 0.9 * 0.7 * correction
            total = total + 0.5 * (chosen[step] - (q_target[step] + correction)).square().sum()
    n_tokens = sum(len(t.action_ids) for t in texts)
    total = total / n_tokens
    total.backward()
    assert abs(total.item() - sum(loss.item() for loss, _ in losses)) < 1e-5
    for name, p in agent.policy.named_parameters():
        if p.grad is None:
            assert name.startswith("value_head")
            assert ours[name] is None
        else:
            torch.testing.assert_close(ours[name], p.grad, rtol=0, atol=1e-5)
    target = 0.5 if with_reference else -0.05
    assert abs(agent.log_alpha - (math.log(0.3) + 0.01 * (np.mean(distances) - target))) < 1e-5


def test_starts_as_the_language_model_with_nothing_to_tell_tokens_apart():
    settings = {"n_envs": 4, "device": "cpu", "max_new_tokens": 6}
    agent = textgym.make_agent("sac", "ReviewContinuation", **settings)
    base = textgym.make_agent("base", "ReviewContinuation", **settings)
    assert agent.generate(["The movie", "It"], seed=1) == base.generate(["The movie", "It"], seed=1)
    (batch,) = micro_batches(agent.write_groups(), 10**6, agent.device)
    hidden, _ = agent.hidden_and_logits(agent.policy, batch)
    assert (agent.policy.least_q(agent.policy.read(hidden)) == 0).all()
    first, second = (critic.features(hidden) for critic in agent.policy.critics)
    assert not torch.allclose(first, second)  # twins that are one are no check on each other


def test_the_temperature_rises_beyond_the_target_and_falls_below(start):
    near, far = make(model=start, n_envs=4, alpha_lr=0.5), make(model=start, n_envs=4, alpha_lr=0.5)
    disturb(far.policy)
    far.target_distance = 0.0
    for agent in (near, far):
        list(agent.losses(agent.write_groups()))
    assert near.log_alpha < math.log(0.1) < far.log_alpha


def test_its_gradient_is_kept_apart_by_default_from_a_trained_model(start):
    agent = make(model=start, n_envs=4)
    texts = agent.write_groups()
    disturb(agent.policy.critics)
    for critic in agent.policy.critics:
        critic.embeddings.zero_()  # Q tells no tokens apart: nothing is left for the actor but the distance, which is at its minimum
    sum(loss for loss, _ in agent.losses(texts)).backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in agent.policy.lm.parameters())
    assert all(p.grad.abs().max() > 1e-6 for p in agent.policy.critics.parameters() if p.shape[0] == 1)


@pytest.mark.parametrize("top_k", [0, 3])
def test_with_adapters_the_distance_is_that_from_the_base_and_the_same_as_from_samples(top_k):
    settings = {"lora_rank": 2, "n_envs": 2, "max_new_tokens": 3, "top_k": top_k, "device": "cpu"}
    agent = textgym.make_agent("sac", "ReviewContinuation", **settings)
    assert agent.reference.lm is agent.policy.lm
    own = {p.data_ptr() for p in agent.policy.lm.parameters() if not p.requires_grad}
    shared = {name: p.data_ptr() in own for name, p in agent.target.lm.named_parameters()}
    assert all(held != ("lora_" in name) for name, held in shared.items())  # no second copy of the base
    texts = agent.write_groups()

    def distance():
        return sum(figures["distance"] for _, figures in agent.losses(texts))

    assert abs(distance()) < 1e-5
    for name, p in agent.policy.lm.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    base, rule, allowed, expected = ReferenceModel("reviews").lm, agent.policy.rule, agent.policy.allowed, []
    with torch.no_grad():
        for t in texts:
            for step, chosen in enumerate(torch.from_numpy(t.action_ids)):
                prefix = torch.from_numpy(np.concatenate([t.prompt_ids, t.action_ids[:step]]))
                ours, theirs = (lm.logits(lm.last_hidden(prefix[None], torch.tensor([len(prefix)]))) for lm in (agent.policy.lm, base))
                probs = rule.apply(ours, allowed, chosen=chosen[None]).softmax(-1)[0]
                (tokens,) = torch.where(probs > 0)
                each = rule.apply(theirs.expand(len(tokens), -1), allowed, chosen=tokens) if top_k else rule.apply(theirs, allowed)
                each = each.log_softmax(-1).expand(len(tokens), -1).gather(1, tokens[:, None])[:, 0]  # as if it had been drawn
                expected.append((probs[tokens] * (probs[tokens].log() - each)).sum().item())
    assert np.mean(expected) > 0.01
    assert abs(distance() - np.mean(expected)) < 1e-4


@pytest.mark.parametrize("setting", [{"alpha": 0}, {"target_kl": -1.0}, {"alpha_lr": -0.1}, {"kl_coef": 0.1}])
def test_bad_settings_are_one_line(setting):
    with pytest.raises(textgym.InvalidArgumentError):
        make(**setting)
