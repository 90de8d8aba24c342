"""Training runs: equal seeds give equal files, a killed run goes on exactly, a directory is protected."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest

import textgym
from tests.preloaded import run_function
from textgym.errors import RunDirectoryError, UnknownNameError
from textgym.experiments.run_directory import RunDirectory
from textgym.experiments.train import TrainConfig, resume, train
from textgym.policies import reference as reference_module

SETTINGS = {
    "ppo": {"n_envs": 4, "n_steps": 10, "batch_size": 20},
    "a2c": {"n_envs": 4, "n_steps": 10},
    "reinforce": {"n_envs": 4},
    "grpo": {"n_envs": 4, "group_size": 2},
    "rloo": {"n_envs": 4, "group_size": 2},
    "nlpo": {"n_envs": 4, "n_steps": 10, "batch_size": 20, "mask_interval": 2},
    "trpo": {"n_envs": 4, "n_steps": 10, "batch_size": 20, "cg_max_steps": 2, "line_search_max_iter": 2},
    "dqn": {"n_envs": 4},
    "soft-q": {"n_envs": 4},
    "sac": {"n_envs": 4, "updates": 2},
    "bc": {"n_envs": 4},
    "expert-iteration": {"n_envs": 4, "group_size": 2, "replay_size": 200},
    "dpo": {"n_envs": 4, "group_size": 2, "replay_size": 200},
    "ilql": {"n_envs": 4},
    "dagger": {"n_envs": 4, "max_new_tokens": 3},
    "gail": {"n_envs": 4, "replay_iterations": 3, "share": 0.02, "discriminator": {"penalty": "interpolated", "spectral_norm": True}},
    "ppo:lora": {"n_envs": 4, "n_steps": 10, "batch_size": 20, "lora_rank": 2, "autocast": "bfloat16"},
    "dpo:lora": {"n_envs": 4, "group_size": 2, "lora_rank": 2},
    "sac:lora": {"n_envs": 4, "updates": 2, "lora_rank": 2},
}  # agent, or agent:variant
TASKS = {"dagger": "TokenChain"}  # where other than ReviewContinuation: it needs an expert


def config(agent, tokens=240):
    settings = {"device": "cpu", "max_new_tokens": 8, **SETTINGS[agent]}
    return TrainConfig(
        TASKS.get(agent, "ReviewContinuation"),
        agent.partition(":")[0],
        tokens,
        0,
        settings,
        evaluations=2,
        validation_prompts=4,
        test_prompts=4,
        checkpoints=6,
    )


def train_and_die(agent, path):
    train(config(agent), path, lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= 150 else None)


def outcome(path):
    result = json.loads((path / "result.json").read_text())
    for measured in ("tokens_per_second", "seconds", "peak_memory"):
        result.pop(measured)
    return result, (path / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("agent", SETTINGS)
def test_same_seed_same_files_and_kill_resume_equals_uninterrupted(agent, tmp_path):
    train(config(agent), tmp_path / "whole")
    code, said = run_function(train_and_die, agent, tmp_path / "killed")
    assert code == -signal.SIGKILL, said
    assert not (tmp_path / "killed" / "result.json").exists()
    assert list((tmp_path / "killed" / "checkpoints").glob("0*")), "killed before the first checkpoint: the test shows nothing"
    resume(tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_directory_in_use_and_already_used(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="in use by another process"):
        RunDirectory(tmp_path / "run")
    directory.write_json("config.json", {})
    directory.close()
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        RunDirectory(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="no run to resume"):
        resume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot write"):
        RunDirectory(tmp_path / "file" / "run")


def test_bad_name_leaves_nothing_behind(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown agent 'none'"):
        train(TrainConfig("CopyToken", "none"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_finished_run_is_returned_at_once(tmp_path):
    result = train(config("reinforce", 40), tmp_path / "run")
    started = time.monotonic()
    assert resume(tmp_path / "run")["rewards"] == result["rewards"]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("agent", ["ppo", "reinforce", "ilql"])
def test_a_run_holds_one_reference_model_and_loads_it_when_it_is_needed(agent, tmp_path, monkeypatch):
    loaded = []
    load = reference_module.load_language_model
    monkeypatch.setattr(reference_module, "load_language_model", lambda *args, **options: loaded.append(args[0]) or load(*args, **options))
    train(replace(config(agent, 16), evaluations=1, checkpoints=0, tensorboard=False), tmp_path / "run")
    assert loaded == ["reviews"]
    loaded.clear()
    alone = textgym.make_agent(agent, "ReviewContinuation", device="cpu", max_new_tokens=8, **SETTINGS[agent])
    alone.learn(16)
    assert loaded == ([] if agent == "ilql" else ["reviews"])
