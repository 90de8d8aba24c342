"""Every registered environment passes the checkers of Gymnasium and stable-baselines3, is documented, and costs little to import."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

import textgym
from textgym.envs.env import TextEnv
from textgym.plugin_manager import installed_plugins
from textgym.tasks import environment_id

TASKS = sorted(installed_plugins().registrations("task"))
SECTIONS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Starting State",
    "Reward",
    "Episode End",
    "Information",
    "Arguments",
    "References",
    "Version History",
]


def test_there_are_environments() -> None:
    assert {"CopyToken-v0", "ReviewContinuation-v0"} <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_gymnasium_accepts_the_environment(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    gymnasium_check(gym.make(environment_id(task)).unwrapped)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("task", TASKS)
def test_stable_baselines3_accepts_the_environment(task: str) -> None:
    sb3_check(gym.make(environment_id(task)).unwrapped)


@pytest.mark.parametrize(
    "document", [*(installed_plugins().find("task", task).factory for task in TASKS), TextEnv], ids=[*TASKS, "TextEnv"]
)
def test_the_documentation_has_every_section_of_gymnasiums_template(document: object) -> None:
    lines = (inspect.getdoc(document) or "").splitlines()
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == SECTIONS
    for here, after in zip(lines, [*lines[1:], ""], strict=True):
        assert not here.startswith("## ") or after.strip(), f"section {here} is empty"


@pytest.mark.parametrize("task", TASKS)
def test_an_environment_can_be_made_from_its_own_spec(task: str) -> None:
    env = gym.make(environment_id(task), max_new_tokens=1)
    again = env.spec.make()  # type: ignore[union-attr]
    assert again.unwrapped.mdp.max_new_tokens == 1  # type: ignore[attr-defined]
    assert again.observation_space == env.observation_space


@pytest.mark.parametrize("mode", ["ansi", "human"])
def test_rendering_shows_prompt_and_continuation(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    env = gym.make("textgym/CopyToken-v0", render_mode=mode)
    env.reset(options={"prompt_index": 1})
    env.step(5)
    shown = env.render() if mode == "ansi" else capsys.readouterr().out.splitlines()[-1]
    assert shown == "\x1b[2ma b\x1b[0m\x1b[1m c\x1b[0m"


def test_rendering_cannot_move_the_cursor() -> None:
    task = textgym.Task("Escape-v0", {"train": ["movie \x1b[2J"]}, max_new_tokens=1, reward="length")
    env = TextEnv(task, render_mode="ansi")
    env.reset(seed=0)
    assert "\\x1b[2J" in str(env.render())
    assert "\x1b[2J" not in str(env.render())


def test_import_is_quick_and_light(tmp_path: Path) -> None:
    code = "import json, sys, textgym; print(json.dumps([m for m in ('torch', 'transformers', 'stable_baselines3') if m in sys.modules]))"
    seconds = []
    for _ in range(3):  # the best of three, in processor time: other work on the machine only ever adds
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.stderr == ""
        assert json.loads(done.stdout) == []
        if seconds[-1] < 1.0:
            break
    assert min(seconds) < 1.0
