"""`textgym reward evaluate` and `explain`: what they print and write, and errors of one line."""

import json

import pytest
from click.testing import CliRunner

from textgym.cli.main import cli
from textgym.errors import TextgymError
from textgym.reward_modeling.data.judgement_source import load_judgements, sample
from textgym.reward_modeling.data.writing import write_judgements


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ratings.jsonl"
    write_judgements(sample(load_judgements("human-ratings"), 60), path)
    return path


def run(*arguments):
    result = CliRunner().invoke(cli, ["reward", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_prints_figures_and_writes_the_report(ratings, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = run("evaluate", "human-rating", ratings, "--baselines", "vader", "--out", tmp_path / "report.html")
    for part in ("pearson", "same-length accuracy", "vader", "constant", "one human 0.", "expected calibration error: "):
        assert part in output
    assert "Furthest from people" in (tmp_path / "report.html").read_text()


def test_explain_adds_up_and_writes_the_page(ratings, tmp_path):
    text = "A dull plot, but great fun."
    found = json.loads(run("explain", "human-rating", "--continuation", text, "--json"))
    assert "".join(word for word, _ in found["words"]) == text
    assert found["baseline"] + sum(part for _, part in found["words"]) == pytest.approx(found["score"])
    output = run("explain", "human-rating", "--continuation", text, "--words", ratings, "--out", tmp_path / "why.html")
    assert "great +" in output
    assert "raise it most: " in output
    assert "dull" in (tmp_path / "why.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["evaluate", "human-rating", "no-such-file.jsonl"], "no-such-file.jsonl"),
        (["evaluate", "human-rating", "human-ratings", "--split", "tset"], "got 'tset'"),
        (["explain", "human-rating"], "--continuation"),
        (["explain", "human-rating", "--continuation", ""], "no word to explain"),
        (["explain", "human-rating", "--continuation", "a", "--method", "magic"], "shapley, occlusion"),
    ],
)
def test_bad_input_is_one_line(arguments, part):
    result = CliRunner().invoke(cli, ["reward", *arguments])
    assert isinstance(result.exception, TextgymError)
    assert part in str(result.exception)
    assert "\n" not in str(result.exception)
