"""The command line: help with an example everywhere, one line and exit code 2 on bad input."""

import os

import pytest
from click.testing import CliRunner

from tests.preloaded import textgym_command
from textgym.cli.main import cli


@pytest.mark.parametrize("command", [[], *[[name] for name in sorted(cli.commands)]])
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example: textgym" in result.output


def test_list_names_everything_with_its_version():
    result = textgym_command("list")
    assert result.returncode == 0
    for name in (
        "human-rating",
        "vader",
        "length",
        "repetition",
        "log-prob",
        "textgym/ReviewContinuation-v0",
        "ppo",
        "reinforce",
        "reviews",
    ):
        assert name in result.stdout
    assert "[textgym 0.1.0]" in result.stdout


def test_a_family_is_one_line_and_its_members_are_listed_when_asked_for():
    pytest.importorskip("reasoning_gym")
    lines = [line for line in textgym_command("list", "tasks").stdout.splitlines() if "reasoning-gym" in line]
    assert len(lines) == 1
    assert "(105: textgym list tasks reasoning-gym)" in lines[0]
    members = textgym_command("list", "tasks", "reasoning-gym").stdout
    assert "reasoning-gym:chain_sum" in members
    assert len(members.splitlines()) == 106


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "ReviewContinuatio", "--out", "OUT"], "unknown task 'ReviewContinuatio': did you mean"),
        (["train", "ReviewContinuation", "--agent", "pop", "--out", "OUT"], "unknown agent 'pop'"),
        (
            ["train", "ReviewContinuation", "--reward", "humanrating", "--out", "OUT"],
            "unknown reward 'humanrating': did you mean 'human-rating'",
        ),
        (["train", "ReviewContinuation", "--model", "revews", "--out", "OUT"], "unknown model 'revews': did you mean 'reviews'"),
        (
            ["train", "ReviewContinuation", "--max-new-tokens", "0", "--out", "OUT"],
            "max_new_tokens must be an integer of at least 1, got 0",
        ),
        (["train", "ReviewContinuation", "--max-new-tokens", "500", "--out", "OUT"], "exceed the context of model 'reviews'"),
        (["train", "ReviewContinuation"], "give TASK and --out DIR"),
        (["train", "ReviewContinuation", "--out", "FILE/run"], "cannot write the run directory"),
        (["train", "ReviewContinuation", "--set", "learning_rat=1", "--out", "OUT"], "did you mean 'learning_rate'"),
        (["generate", "OUT", "--prompt", "x"], "holds no agent.json"),
        (["train", "ReviewContinuation", "--task-set", "n_word=1", "--out", "OUT"], "has no option 'n_word': did you mean 'n_words'?"),
        (["list", "tasks", "reasoning-gm"], "'reasoning-gm' is no family of tasks; families: reasoning-gym"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path):
    (tmp_path / "file").write_text("")
    real = [a.replace("OUT", str(tmp_path / "out")).replace("FILE", str(tmp_path / "file")) for a in arguments]
    result = textgym_command(*real)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["file"]
