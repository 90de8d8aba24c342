"""Every bundled agent learns the identity task, and reloads as it was saved."""

from typing import Any

import numpy as np
import pytest
import torch

import textgym
from textgym.agent import agent_search_space, agent_settings
from textgym.plugin_manager import installed_plugins

PROMPTS = [f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"]
SETTINGS = {
    "ppo": {"learning_rate": 3e-3, "n_steps": 8, "batch_size": 128, "n_epochs": 4},
    "a2c": {"learning_rate": 3e-3, "n_steps": 4},
    "reinforce": {"learning_rate": 3e-3},
    "grpo": {"learning_rate": 3e-3},
    "rloo": {"learning_rate": 3e-3},
    "nlpo": {"learning_rate": 3e-3, "n_steps": 8, "batch_size": 128, "n_epochs": 4},
    "trpo": {"learning_rate": 3e-3, "n_steps": 8, "target_kl": 0.05, "cg_max_steps": 4},
    "soft-q": {"learning_rate": 3e-3},
    "sac": {"learning_rate": 3e-3, "alpha_lr": 0.002},
    "bc": {"learning_rate": 3e-3},
    "expert-iteration": {"learning_rate": 3e-3},
    "dpo": {"learning_rate": 3e-3},
    "ilql": {"learning_rate": 3e-3, "beta": 8.0},
    "dagger": {"learning_rate": 3e-3},
    "gail": {"learning_rate": 3e-3, "n_envs": 64, "n_minibatches": 1, "discriminator": {"learning_rate": 3e-3}},
}
TOKENS = {
    "soft-q": 4_000,
    "sac": 4_000,
    "grpo": 8_000,
    "rloo": 10_000,
    "nlpo": 8_000,
    "trpo": 10_000,
    "bc": 2_000,
    "expert-iteration": 4_000,
    "dpo": 6_000,
    "ilql": 8_000,
    "dagger": 3_000,
    "gail": 6_000,
}  # where other than 16,000


def accuracy(agent):
    texts = agent.generate(PROMPTS, seed=1)
    return np.mean([text == f"{prompt} {prompt[-1]}" for prompt, text in zip(PROMPTS, texts, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_copy_token_is_learnt(name):
    agent = textgym.make_agent(name, "CopyToken", seed=0, kl_coef=0.0, device="cpu", **SETTINGS[name])
    assert accuracy(agent) < 0.5
    budget = TOKENS.get(name, 16_000)
    agent.learn(budget)
    assert accuracy(agent) >= 0.95
    assert agent.n_tokens >= budget


@pytest.mark.slow
def test_copy_token_is_learnt_by_adapters_alone(tmp_path):
    base = textgym.make_agent("base", "CopyToken", seed=0, device="cpu")
    with torch.no_grad():
        # a frozen output layer must be of a trained one's size to say anything with confidence; the layers before it say something else
        base.policy.lm.output[0].weight.mul_(12)
        for name, weight in base.policy.lm.named_parameters():
            if name.endswith("mlp.c_proj.weight"):
                weight.normal_(std=1.2)
    base.save(tmp_path / "base")
    settings = {"lora_rank": 8, "lora_targets": "all-linear", "learning_rate": 3e-3}
    agent = textgym.make_agent("reinforce", "CopyToken", model=tmp_path / "base", seed=0, kl_coef=0.0, device="cpu", **settings)
    before = {name: p.clone() for name, p in agent.policy.lm.named_parameters() if not p.requires_grad}
    assert accuracy(agent) < 0.5
    agent.learn(4_000)
    assert accuracy(agent) >= 0.95
    assert all(torch.equal(p, before[name]) for name, p in agent.policy.lm.named_parameters() if name in before)


@pytest.mark.parametrize("baseline", ["none", "moving-average", "leave-one-out", "learned"])
def test_reinforce_runs_with_every_baseline(baseline):
    agent = textgym.make_agent("reinforce", "CopyToken", kl_coef=0.0, baseline=baseline, n_envs=8, device="cpu")
    before = [p.clone() for p in agent.policy.parameters()]
    agent.learn(16)
    assert any((a != b).any() for a, b in zip(before, agent.policy.parameters(), strict=True))


@pytest.mark.parametrize("name", ["base", *SETTINGS])
def test_save_load_writes_the_same_texts(name, tmp_path):
    agent = textgym.make_agent(name, "CopyToken", seed=3, n_envs=8, device="cpu", **({} if name == "base" else {"kl_coef": 0.0}))
    agent.learn(64)
    agent.save(tmp_path / "agent")
    loaded = textgym.load_agent(tmp_path / "agent")
    assert loaded.n_tokens == agent.n_tokens
    assert loaded.reference_model is None  # there was no model to stay close to, and the checkpoint is not one
    assert loaded.generate(PROMPTS, seed=5) == agent.generate(PROMPTS, seed=5)


def test_generation_does_not_depend_on_the_batch():
    agent = textgym.make_agent("base", "ReviewContinuation", n_envs=2, device="cpu")
    prompts = ["The movie", "This camera is", "I", "A film of"]
    assert agent.generate(prompts, seed=0, batch_size=4) == agent.generate(prompts, seed=0, batch_size=2)


def test_unknown_setting_is_one_line():
    with pytest.raises(textgym.InvalidArgumentError, match="did you mean 'learning_rate'"):
        textgym.make_agent("ppo", "CopyToken", learning_rat=1e-3)
    with pytest.raises(textgym.UnknownNameError, match="did you mean 'ppo'"):
        textgym.make_agent("pp0", "CopyToken")


@pytest.mark.parametrize("name", SETTINGS)
def test_without_weights_to_stay_close_to_there_is_no_kl_penalty_by_default(name: str) -> None:
    agent = textgym.make_agent(name, "CopyToken", n_envs=8, device="cpu")
    assert agent.kl_coefficient(None) == 0
    agent.learn(8)
    with pytest.raises(
        textgym.InvalidArgumentError, match=r"kl_coef=0.2 (needs a reference model, but 'copy-token' has no weights yet|out)"
    ):
        textgym.make_agent(name, "CopyToken", kl_coef=0.2, device="cpu")


@pytest.mark.parametrize("name", [*SETTINGS, "dqn"])
def test_the_search_of_every_agent_can_begin_at_its_defaults_beside_a_reference_model(name: str) -> None:
    task = textgym.Task(
        "T-v0", {"train": [textgym.Prompt("It was", (" good",))]}, reward=lambda e: [0.0] * len(e), expert=lambda *_: " good"
    )
    factory = installed_plugins().find("agent", name).factory
    space, settings = agent_search_space(factory), agent_settings(factory)
    start = {setting: settings[setting] for setting in space} | ({"kl_coef": 0.1} if "kl_coef" in space else {})
    agent = textgym.make_agent(name, task, device="cpu", **start, **({"data": "references"} if name == "ilql" else {}))
    assert agent.reference_model is not None


@pytest.mark.parametrize("name", ["bc", "dagger", "dpo", "ilql", "sac", "soft-q"])
def test_a_refused_setting_is_in_no_table_and_an_error_however_the_agent_is_built(name: str) -> None:
    factory: Any = installed_plugins().find("agent", name).factory
    assert "kl_coef" not in agent_settings(factory)
    assert "kl_coef" not in agent_search_space(factory)
    message = f"^{factory.__name__}: .+; leave kl_coef=0.1 out$"
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        textgym.make_agent(name, "ReviewContinuation", kl_coef=0.1)
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        factory("ReviewContinuation", kl_coef=0.1)
    with pytest.raises(textgym.InvalidArgumentError, match="has no setting 'kl_coeff'"):
        textgym.make_agent(name, "ReviewContinuation", kl_coeff=0.1)
