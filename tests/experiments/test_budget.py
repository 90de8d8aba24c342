"""Budgets: learning stops after the iteration that spends them, whatever they count; a resumed run spends what is left."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import textgym
from tests.preloaded import run_function
from textgym.experiments import train as train_module
from textgym.experiments.budget import Budget, read_budget
from textgym.experiments.train import TrainConfig, resume, train

CPU = torch.device("cpu")
SETTINGS = {"ppo": {"n_envs": 4, "n_steps": 10, "batch_size": 20}, "reinforce": {"n_envs": 4}}


def config(agent, budget, **changes):
    settings = {"device": "cpu", "max_new_tokens": 8, **SETTINGS.get(agent, {"n_envs": 4})}
    options = {"evaluations": 2, "validation_prompts": 4, "test_prompts": 4, "checkpoints": 4, "tensorboard": False, **changes}
    return TrainConfig("ReviewContinuation", agent, 20_000, 0, settings, budget=budget, **options)


@pytest.mark.parametrize("agent", SETTINGS)
@pytest.mark.parametrize("kind", ["tokens", "tokens-trained", "texts-scored"])
def test_learning_stops_after_the_iteration_that_spends_the_budget(agent, kind, tmp_path):
    amount = {"tokens": 100, "tokens-trained": 150, "texts-scored": 18}[kind]
    seen = []
    result = train(config(agent, f"{kind}={amount}"), tmp_path / "run", lambda done, total: seen.append((done, total)))
    spent = result[kind.replace("-", "_")]
    assert spent >= amount
    assert seen[-1] == (spent, amount)
    assert seen[-2][0] < amount  # not one iteration more
    curve = [p["spent"] for p in result["curve"]]
    assert curve[0] == 0
    assert curve[-1] == spent
    assert curve == sorted(curve)
    assert result["tokens_generated"] >= result["texts_scored"] > 0
    assert result["tokens_trained"] >= result["tokens_generated"] / 2
    assert result["seconds"] > 0


def test_a_budget_of_seconds_counts_learning_alone(tmp_path, monkeypatch):
    measured, later = train_module.evaluate, 0

    def slow(*arguments):
        nonlocal later
        later += 1000
        return measured(*arguments)

    monkeypatch.setattr(train_module, "evaluate", slow)
    monkeypatch.setattr(train_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later))
    result = train(config("reinforce", "seconds=0.4"), tmp_path / "run")
    assert later >= 2000  # seconds that the clock went on in evaluations
    assert 0.4 <= result["seconds"] < 1000


def train_and_die(agent, path):
    train(config(agent, "tokens-trained=300"), path, lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= 200 else None)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ppo"])  # the one whose loop is not ours
def test_kill_and_resume_spend_the_same(agent, tmp_path):
    whole = train(config(agent, "tokens-trained=300"), tmp_path / "whole")
    code, said = run_function(train_and_die, agent, tmp_path / "killed")
    assert code == -signal.SIGKILL, said
    before = textgym.load_agent(next((tmp_path / "killed" / "checkpoints").glob("0*"))).learning_seconds
    assert before > 0
    resumed = resume(tmp_path / "killed")
    assert resumed["seconds"] > before
    for result in (whole, resumed):
        for name in ("seconds", "tokens_per_second", "peak_memory"):
            result.pop(name)
    assert resumed == whole
    assert (tmp_path / "killed" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_the_control_spends_nothing_of_any_budget(tmp_path):
    result = train(config("base", "seconds=1000", evaluations=1, checkpoints=0), tmp_path / "run")
    assert (result["tokens_generated"], result["tokens_trained"], result["texts_scored"], result["seconds"]) == (0, 0, 0, 0.0)


def test_an_agent_that_never_spends_the_budget_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "PATIENCE", 3)
    monkeypatch.setattr(Budget, "spent", lambda *_: 0)
    with pytest.raises(textgym.InvalidArgumentError, match="agent 'reinforce' spends no texts scored: give it another budget"):
        train(config("reinforce", "texts-scored=100", evaluations=0, checkpoints=0), tmp_path / "run")


def test_an_agent_that_spends_the_budget_before_it_learns_does_not_learn_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "PATIENCE", 3)
    few = TrainConfig(
        "CopyToken", "bc", 100, 0, {"device": "cpu"}, 0, test_prompts=0, checkpoints=0, tensorboard=False, budget="texts-scored=1000"
    )
    message = r"agent 'bc' spends no texts scored in learning \(64 before it began\): give it another budget"
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        train(few, tmp_path / "run")


def test_linear_schedule_follows_the_budget(tmp_path):
    agent = textgym.make_agent("reinforce", "CopyToken", n_envs=8, device="cpu", lr_schedule="linear")
    assert agent.progress == 0
    agent.budget_share = lambda: 0.25
    assert agent.progress == 0.25
    agent.budget_share = lambda: 1.5
    assert agent.progress == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens-trainde=1", "did you mean 'tokens-trained'"),
        ("seconds", "written KIND=AMOUNT"),
        ("seconds=soon", "written KIND=AMOUNT"),
        ("seconds=0", "must be above 0"),
        ("seconds=inf", "must be above 0"),
        ("tokens=0.5", "must be at least 1"),
    ],
)
def test_bad_budgets_are_one_line(text, message):
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        TrainConfig("CopyToken", "ppo", budget=text)
    assert str(read_budget("tokens-trained=50_000")) == "50,000 tokens trained on"


PEAKS = """
import numpy as np, torch
from textgym.memory import peak_memory, reset_peak
cpu = torch.device("cpu")
reset_peak(cpu)
before = peak_memory(cpu)
block = np.ones(64 * 2**20, np.uint8)
print(peak_memory(cpu) - before)
del block
reset_peak(cpu)
print(peak_memory(cpu) - before)
blocks = [bytes(100_000) for _ in range(1000)]  # the C library keeps such small ones when they are free
del blocks[:-1]
reset_peak(cpu)
print(peak_memory(cpu) - before)
"""


def test_peak_memory_is_measured_anew():
    # in a process of its own: one that has run other tests gives memory back at any moment
    told = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True).stdout.split()
    grown, anew, without_what_was_freed = map(float, told)
    assert 50 < grown < 90
    assert anew < 40
    assert without_what_was_freed < 40
