"""Adapters, autocast and gradient checkpointing: the same policy by other means - equal at the start, saved alone, the base held once."""

import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import textgym
from tests.policies.test_policy import collect, full_pass, make_ppo, tensors
from textgym.lm.adapters import ADAPTER_WEIGHTS, LoRA
from textgym.lm.language_model import load_language_model
from textgym.policies.reference import ReferenceModel
from textgym.sb3 import CausalLMPolicy, make_vec_env

ADAPTED = {"lora_rank": 4}


def held_bytes(*modules):
    """Bytes of the different tensors that modules hold."""
    tensors = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for m in modules for p in m.parameters()}
    return sum(tensors.values())


def shift(policy):
    """Give every adapter a change that is not 0."""
    for name, parameter in policy.lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)


def test_only_adapters_and_value_head_learn_and_nothing_changes_at_first(task):
    adapted, whole = make_ppo(task, policy=ADAPTED).policy, make_ppo(task).policy
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name or name.startswith("value_head") for name in learning)
    optimised = {id(p) for group in adapted.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in adapted.parameters() if p.requires_grad}
    obs = tensors(make_vec_env(task, n_envs=4, seed=0).reset())
    assert torch.equal(full_pass(adapted, obs)[0], full_pass(whole, obs)[0])


def test_cached_equals_full_with_adapters_and_after_an_update(task):
    model = make_ppo(task, policy={**ADAPTED, "lora_targets": "all-linear"})
    policy, env = model.policy, make_vec_env(task, n_envs=5, seed=3)
    obs = env.reset()
    for step in range(20):
        if step in (3, 11):
            shift(policy)  # which the cache must notice by itself
        with torch.no_grad():
            actions, _, log_probs = policy(tensors(obs))
        expected, _ = full_pass(policy, tensors(obs))
        np.testing.assert_allclose(log_probs, expected.gather(1, actions[:, None]).squeeze(1), atol=1e-4)
        obs = env.step(actions.numpy())[0]


def test_first_step_of_a_fused_optimizer_is_noticed_by_the_cache(task):
    policy = make_ppo(task, policy=ADAPTED).policy
    obs = tensors(make_vec_env(task, n_envs=4, seed=0).reset())
    with torch.no_grad():
        actions, _, before = policy(obs)
    optimizer = torch.optim.Adam([p for p in policy.lm.parameters() if p.requires_grad], lr=0.1, fused=True)
    policy.evaluate_actions(obs, actions)[1].sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = policy.get_distribution(obs).log_prob(actions)
        policy.forward(obs)
        cached = policy.rule.apply(policy.lm.logits(policy._cached_hidden(obs)), policy.allowed).log_softmax(-1)
    assert not torch.allclose(before, after, atol=1e-3)
    np.testing.assert_allclose(cached.gather(1, actions[:, None]).squeeze(1), after, atol=1e-4)


def test_reference_is_the_base_and_no_second_copy(task):
    model = make_ppo(task, policy=ADAPTED, buffer={"kl_coef": 0.1})
    model.rollout_buffer.share_reference(model.policy)
    assert model.rollout_buffer.reference.lm is model.policy.lm
    assert held_bytes(model.policy.lm, model.rollout_buffer.reference.lm) == held_bytes(model.policy.lm)
    buffer = collect(model)
    assert abs(buffer.statistics["kl"]) < 1e-5
    shift(model.policy)
    streams = [(s.prefix, buffer.actions[s.start : s.stop, s.env]) for s in buffer.segments]
    shared = buffer.reference.log_probs(streams, model.policy.rule, None)
    np.testing.assert_allclose(shared, ReferenceModel(task.model).log_probs(streams, model.policy.rule, None), atol=1e-6)
    obs = tensors(make_vec_env(task, n_envs=4, seed=0).reset())
    assert not torch.equal(full_pass(model.policy, obs)[0], full_pass(make_ppo(task).policy, obs)[0])  # on again afterwards
    assert all(p.requires_grad == ("lora_" in n) for n, p in model.policy.lm.named_parameters())


def test_another_reference_than_the_base_is_loaded(task, tmp_path):
    policy = make_ppo(task, policy=ADAPTED).policy
    shift(policy)
    policy.save_pretrained(tmp_path / "adapters")
    assert ReferenceModel(str(tmp_path / "adapters"), adapted=policy.lm).lm is not policy.lm


def test_saved_alone_loaded_merged_or_apart_and_by_transformers(task, tmp_path):
    policy = make_ppo(task, policy=ADAPTED).policy
    shift(policy)
    folder = tmp_path / "adapters"
    policy.save_pretrained(folder)
    assert not (folder / "model.safetensors").exists()
    assert (folder / ADAPTER_WEIGHTS).stat().st_size < 0.6 * held_bytes(policy.lm)
    obs = tensors(make_vec_env(task, n_envs=4, seed=0).reset())
    expected, _ = full_pass(policy, obs)
    spaces = (policy.observation_space, policy.action_space, lambda _: 0.0)
    apart, merged = CausalLMPolicy(*spaces, model=folder, **ADAPTED), CausalLMPolicy(*spaces, model=folder)
    assert torch.equal(full_pass(apart, obs)[0], expected)
    assert apart.lm.is_based_on(task.model)
    np.testing.assert_allclose(full_pass(merged, obs)[0], expected, atol=1e-5)
    assert all(p.requires_grad and "lora" not in n for n, p in merged.lm.named_parameters())
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[3, 4, 5]])
    ours = policy.lm.logits(policy.lm.trunk[0](input_ids=ids).last_hidden_state)
    np.testing.assert_allclose(theirs(ids).logits.detach(), ours.detach(), atol=1e-5)
    merged.save_pretrained(tmp_path / "whole")
    again = CausalLMPolicy(*spaces, model=tmp_path / "whole")
    assert torch.equal(full_pass(again, obs)[0], full_pass(merged, obs)[0])
    with pytest.raises(textgym.InvalidArgumentError, match="have rank 4, not lora_rank=2"):
        CausalLMPolicy(*spaces, model=folder, lora_rank=2)


def test_tied_output_layer_stays_tied(task):
    lm = load_language_model(task.model, lora=LoRA(2, targets="all-linear"))
    tied = lm.model.config.tie_word_embeddings
    assert (lm.output[0].weight is lm.model.get_input_embeddings().weight) == tied
    assert not lm.output[0].weight.requires_grad


def test_bad_ranks_and_targets_are_one_line(task):
    for bad, words in (({"lora_rank": -1}, "lora_rank"), ({"lora_rank": 2, "lora_targets": ["nothing"]}, "no adapters for")):
        with pytest.raises(textgym.InvalidArgumentError, match=words):
            make_ppo(task, policy=bad)
    with pytest.raises(textgym.InvalidArgumentError, match="lora_alpha"):
        make_ppo(task, policy={"lora_rank": 2, "lora_alpha": 0.0})


@pytest.mark.parametrize("name", ["reinforce", "ppo", "dpo"])
def test_agents_keep_one_copy_and_reload(name, tmp_path):
    options = {"n_steps": 8} if name == "ppo" else {}
    agent = textgym.make_agent(name, "ReviewContinuation", n_envs=4, max_new_tokens=8, lora_rank=2, device="cpu", **options)
    reference = agent.algorithm.rollout_buffer.reference if name == "ppo" else agent.reference
    held = [agent.policy.lm, reference.lm, *([agent.start.lm] if name == "dpo" else [])]
    one = held_bytes(load_language_model("reviews"))
    assert held_bytes(*held) < 1.1 * one
    kls = []
    agent.logger.record = lambda key, value, *_, **__: kls.append(value) if key == "rollout/kl" else None
    agent.learn(32)
    assert abs(kls[0]) < 1e-5
    agent.save(tmp_path / "agent", training_state=True)
    loaded = textgym.load_agent(tmp_path / "agent")
    assert loaded.policy.lm.is_based_on("reviews")
    assert loaded.generate(["The movie", "This"], seed=3) == agent.generate(["The movie", "This"], seed=3)
    whole = textgym.make_agent("base", "ReviewContinuation", model=tmp_path / "agent", device="cpu")
    assert whole.generate(["The movie"], max_new_tokens=4) == agent.generate(["The movie"], max_new_tokens=4)


# --- precision and memory ---------------------------------------------------------------------------------------------------------


def test_autocast_keeps_weights_in_float32_and_its_first_ratios_near_one(task):
    model = make_ppo(task, policy={"autocast": "bfloat16"})
    buffer = collect(model)
    policy = model.policy
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    batch = next(buffer.get(None))
    assert policy.lm.packed_hidden(batch.observations).dtype in (torch.bfloat16, torch.float32)
    assert policy.lm.logits(policy.lm.packed_hidden(batch.observations)).dtype == torch.bfloat16
    _, log_prob, _ = policy.evaluate_actions(batch.observations, batch.actions)
    log_ratio = log_prob - batch.old_log_prob
    assert (log_ratio.expm1() - log_ratio).mean() < 2e-3  # approx_kl of the first pass, nats per token
    log_prob.sum().backward()
    assert {p.grad.dtype for p in policy.lm.parameters() if p.grad is not None} == {torch.float32}
    full = make_ppo(task).policy
    _, exact, _ = full.evaluate_actions(batch.observations, batch.actions)
    np.testing.assert_allclose(log_prob.detach(), exact.detach(), atol=0.2)
    assert not torch.equal(log_prob, exact)


def test_gradient_checkpointing_changes_no_gradient(task):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = make_ppo(task, policy={"gradient_checkpointing": checkpointing})
        batch = next(collect(model).get(None))
        model.policy.set_training_mode(True)
        _, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions)
        log_prob.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.policy.lm.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_unknown_autocast_is_one_line(task):
    with pytest.raises(textgym.InvalidArgumentError, match="autocast must be one of torch's"):
        make_ppo(task, policy={"autocast": "bfloat17"})


def test_a_model_without_weights_gets_no_adapters_and_a_missing_package_is_named(task, monkeypatch):
    with pytest.raises(textgym.InvalidArgumentError, match="has no weights yet"):
        textgym.make_agent("reinforce", "CopyToken", lora_rank=2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(textgym.MissingExtraError, match=r"textgym\[lora\]"):
        make_ppo(task, policy=ADAPTED)
