"""A real language model: SmolLM2-135M from its GGUF file, through one PPO iteration."""

import math

import pytest
from stable_baselines3 import PPO

import textgym
from textgym.lm.source import resolve_model
from textgym.sb3 import CausalLMPolicy, EpisodeRolloutBuffer, make_vec_env


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_one_ppo_iteration(smollm2_gguf):
    folder = resolve_model(smollm2_gguf)
    assert resolve_model(smollm2_gguf) == folder  # converted once
    task = textgym.Task("Chat-v0", {"train": ["The movie was", "I bought this camera", "Yesterday"]}, smollm2_gguf, 8, "vader")
    vec = make_vec_env(task, n_envs=4, seed=0)
    model = PPO(
        CausalLMPolicy,
        vec,
        n_steps=8,
        batch_size=32,
        n_epochs=1,
        gamma=1.0,
        device="cpu",
        seed=0,
        policy_kwargs={"model": smollm2_gguf},
        rollout_buffer_class=EpisodeRolloutBuffer,
    )
    model.learn(32)
    logged = model.logger.name_to_value
    for name in ("train/loss", "train/policy_gradient_loss", "train/value_loss", "train/approx_kl", "train/entropy_loss"):
        assert math.isfinite(logged[name]), name
    assert abs(logged["train/approx_kl"]) < 1e-4
    assert logged["train/entropy_loss"] < -0.5
