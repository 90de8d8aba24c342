"""`textgym reward evaluate` and `explain`: what they print and write, and errors of one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from textgym.cli.main import cli
from textgym.errors import TextgymError
from textgym.reward_modeling.data.judgement_source import load_judgements, sample
from textgym.reward_modeling.data.judgements import JudgementSet, PreferencePair
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


def test_figures_on_training_texts_carry_a_warning(tmp_path, monkeypatch):
    drawn = sample(load_judgements("human-ratings"), 40)
    write_judgements(drawn, tmp_path / "all.jsonl")
    renamed = tuple(replace(item, id=f"other-{item.id}", group="") for item in drawn.items)
    write_judgements(replace(drawn, items=renamed), tmp_path / "renamed.jsonl")
    for name, options in (("one", ()), ("several", ("--members", "2", "--bootstrap"))):
        run("fit", tmp_path / "all.jsonl", "--out", tmp_path / name, *options)
        for data in ("all", "renamed"):
            arguments = ("evaluate", tmp_path / name, tmp_path / f"{data}.jsonl", "--baselines", "")
            warned = CliRunner().invoke(cli, ["reward", *map(str, arguments), "--split", ""], catch_exceptions=False).output
            assert ("warning: 40 of the 120 judgements" if name == "one" else "of the 120 judgements") in warned
            assert "warning" not in run(*arguments)


def test_a_file_without_splits_is_told_how_to_get_them(tmp_path):
    drawn = sample(load_judgements("human-ratings"), 20)
    path = tmp_path / "all.jsonl"
    write_judgements(replace(drawn, items=tuple(replace(item, split="") for item in drawn.items)), path)
    assert "--split 0.8,0.1,0.1 --convert" in run("fit", path, "--out", tmp_path / "model")
    with pytest.raises(TextgymError, match=r"textgym reward data \S+ --split 0.8,0.1,0.1 --convert"):
        run("evaluate", tmp_path / "model", path)


def test_scores_that_are_no_ratings_get_no_figures_of_ratings(ratings, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = run("evaluate", "distinct-n", ratings, "--baselines", "human-rating")
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]] for line in output.splitlines() if line.count("│") > 3
    }
    for figure in ("mse", "calibration error", "f1"):
        own, judge, words, constant = rows[figure]
        assert (own, words) == ("-", "-")
        assert judge.startswith(("0.", "1."))
        assert constant != "-"
    assert "-" not in (rows["spearman"][0], rows["pairwise accuracy"][2])
    assert "distinct-n ranges from 0 to 1, so it is no rating on the scale of" in output
    truth = [item.rating for item in load_judgements(ratings).split("test").items]
    usual = np.mean([item.rating for item in load_judgements(ratings).split("train").items])
    assert float(rows["mse"][3].split()[0]) == pytest.approx(np.mean((np.array(truth) - usual) ** 2), abs=5e-4)


def test_words_of_pairs_and_of_labels_are_listed_too(tmp_path):
    texts = [f"a {word} film {i}" for i in range(6) for word in ("great", "dull")]
    pairs = [PreferencePair(id=str(i), chosen=texts[2 * i], rejected=texts[2 * i + 1]) for i in range(6)]
    write_judgements(JudgementSet("pairs", tuple(pairs)), tmp_path / "pairs.jsonl")
    raised, lowered = run("explain", "vader", "--words", tmp_path / "pairs.jsonl").splitlines()[:2]
    assert "great +" in raised
    assert "film" in lowered


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
        (["evaluate", "human-rating", "human-ratings", "--out", "no-such-folder/r.html"], "there is no folder no-such-folder"),
        (["explain", "human-rating", "--continuation", "Fine.", "--out", "no-such-folder/r.html"], "there is no folder no-such-folder"),
        (["discriminate", "ReviewContinuation", "--out", "d", "--set", "label_smoothing=x"], "label_smoothing must be a number, got 'x'"),
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
