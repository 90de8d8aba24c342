"""Settings of agents: what their values may be, and what becomes of them when an agent is saved."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

import textgym
from textgym.agent import agent_settings, check_settings
from textgym.annotation import fits
from textgym.plugin_manager import installed_plugins


@pytest.mark.parametrize(
    ("agent", "settings", "message"),
    [
        ("soft-q", {"alpha": "foo"}, "agent 'soft-q': alpha must be a number, got 'foo'"),
        ("dqn", {"tau": "x"}, "tau must be a number, got 'x'"),
        ("dqn", {"tau": float("nan")}, "tau must be a number, got nan"),
        ("ppo", {"n_steps": "abc"}, "n_steps must be a whole number, got 'abc'"),
        ("ppo", {"n_steps": 2.5}, "n_steps must be a whole number, got 2.5"),
        ("gail", {"discriminator": 5}, "discriminator must be a Mapping or none, got 5"),
        ("grpo", {"dynamic_sampling": "maybe"}, "dynamic_sampling must be true or false or none, got 'maybe'"),
        ("grpo", {"loss_type": "gpo"}, "loss_type must be one of grpo, dr-grpo, dapo, got 'gpo'"),
        ("ppo", {"lora_targets": [1]}, "lora_targets must be a text or a Sequence or none"),
        ("a2c", {"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ("ppo", {"n_epochs": 0}, "n_epochs must be at least 1, got 0"),
        ("ppo", {"gamma": 7}, "gamma must be from 0 to 1, got 7"),
        ("ppo", {"kl_coef": -1}, "kl_coef must be at least 0, got -1"),
        ("gail", {"gamma": 7}, "gamma must be from 0 to 1, got 7"),
        ("reinforce", {"vf_coef": -1}, "vf_coef must be at least 0, got -1"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_one_line(agent, settings, message):
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        textgym.make_agent(agent, "CopyToken", device="cpu", **settings)


def test_the_defaults_and_the_bounds_of_every_agent_agree():
    for name in installed_plugins().registrations("agent"):
        factory = installed_plugins().find("agent", name).factory
        check_settings(name, factory, {s: v for s, v in agent_settings(factory).items() if v is not None})


def test_what_an_annotation_says():
    assert fits(1, float)
    assert fits(np.float32(0.5), float)
    assert fits(np.int64(3), int | None)
    assert fits(None, int | None)
    assert not fits(True, int)
    assert not fits(1, bool)
    assert not fits(1, Literal[True])
    assert fits(["a"], Sequence[str])
    assert not fits("a", Sequence[str])
    assert fits([1], tuple[int, ...]), "what JSON can say"
    assert fits(object(), Any)
    assert fits("a", "NotImported")


def test_an_agent_with_a_function_as_reward_is_saved_and_wants_it_again(tmp_path):
    def reward(episodes):
        return [1.0 for _ in episodes]

    agent = textgym.make_agent("reinforce", "CopyToken", reward=reward, device="cpu", n_envs=4)
    agent.save(tmp_path / "agent")
    assert json.loads((tmp_path / "agent" / "agent.json").read_text())["settings"]["reward"] is None
    with pytest.raises(textgym.InvalidArgumentError, match="was made with a Python object as reward: pass it again as reward="):
        textgym.load_agent(tmp_path / "agent")
    loaded = textgym.load_agent(tmp_path / "agent", reward=reward)
    loaded.save(tmp_path / "again")
    assert loaded.env.mdp.reward.score([textgym.Episode("a", " b")]).tolist() == [1.0]
    named = textgym.load_agent(tmp_path / "again", reward="copied")
    named.save(tmp_path / "named")
    textgym.load_agent(tmp_path / "named")
