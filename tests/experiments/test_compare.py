"""Small comparisons: files, table, report; going on after an interruption, with other agents, and beside runs that fail."""

import csv
import shutil
from dataclasses import replace
from itertools import combinations

import pytest
from click.testing import CliRunner

from textgym.cli.compare import compare_command
from textgym.errors import InvalidArgumentError, RunDirectoryError, UnknownNameError
from textgym.experiments.compare import CompareConfig, Comparison, Pair, Row, compare
from textgym.experiments.doubts import doubts
from textgym.experiments.report import write_report
from textgym.experiments.statistics import Estimate

MEASURED = ("tokens_per_second", "seconds", "peak_memory")


def rows_of(folder):
    with open(folder / "results.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name not in MEASURED} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_compare_writes_table_and_report_and_continues(tmp_path):
    folder = tmp_path / "c"
    settings = {"max_new_tokens": 6, "n_envs": 4, "device": "cpu"}
    config = CompareConfig("ReviewContinuation", ("reinforce",), 2, 24, settings, evaluations=1, validation_prompts=4, test_prompts=8)
    comparison = compare(config, folder, n_workers=1)
    rows = rows_of(folder)
    assert [(r["agent"], r["seed"]) for r in rows] == [("reinforce", "0"), ("reinforce", "1"), ("base", "0"), ("base", "1")]
    assert all(abs(float(r["kl"])) < 1e-5 for r in rows if r["agent"] == "base")
    write_report(comparison, folder / "report.html")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert "http" not in page.replace("http-equiv", "")
    shutil.rmtree(folder / "runs" / "reinforce-1")  # as if it had never run
    again = compare(config, folder, n_workers=1)
    assert rows_of(folder) == rows
    assert again.pairs == comparison.pairs
    with pytest.raises(RunDirectoryError, match="another comparison, whose run reinforce-0 has other settings"):
        compare(replace(config, tokens=25), folder)
    with pytest.raises(RunDirectoryError, match="holds no comparison to go on with"):
        compare(config, folder / "runs" / "base-0")


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_are_judged(tmp_path):
    out = tmp_path / "c"
    arguments = ["CopyToken", "--agents", "reinforce,bc", "--seeds", "2", "--tokens", "96", "--test-prompts", "8", "--workers", "1"]
    arguments += ["--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(compare_command, [*arguments, "--set", "reinforce.learning_rate=1e30"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "reinforce  failed (seed 0, 1)" in result.output
    assert "run reinforce-1 failed: DivergenceError: " in result.output
    assert "bc - base:" in result.output
    assert {r["agent"] for r in rows_of(out)} == {"bc", "base"}
    assert "<li>reinforce-1: DivergenceError: " in (out / "report.html").read_text()
    with pytest.raises(RunDirectoryError, match="whose run reinforce-0 has other settings: choose another directory, or remove that run"):
        CliRunner().invoke(compare_command, arguments, catch_exceptions=False)
    for seed in (0, 1):
        shutil.rmtree(out / "runs" / f"reinforce-{seed}")
    result = CliRunner().invoke(compare_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "reinforce - bc:" in result.output


def test_a_setting_goes_to_the_agents_that_have_it():
    config = CompareConfig("CopyToken", ("bc",), settings={"learning_rate": 1e-3, "n_envs": 8, "bc.share": 0.5})
    assert config.settings_of("bc") == {"learning_rate": 1e-3, "n_envs": 8, "share": 0.5}
    assert config.settings_of("base") == {"n_envs": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"lerning_rate": 1e-3}}, r"none of the agents bc, base has a setting 'lerning_rate': did you mean 'learning_rate'\?"),
        ({"settings": {"bc.shre": 1}}, "agent 'bc' has no setting 'shre': did you mean 'share'"),
        ({"agents": ()}, "at least one agent beside the control 'base'"),
        ({"agents": ("base",)}, "at least one agent beside the control 'base'"),
        ({"test_prompts": 0}, "test_prompts of a comparison must be at least 1, got 0"),
        ({"seeds": 0}, "seeds of a comparison must be at least 1, got 0"),
        ({"evaluations": 0}, "evaluations of a comparison must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_runs(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        CompareConfig(**{"task": "CopyToken", "agents": ("bc",), **changes})


def test_an_unknown_agent_is_said_before_anything_runs():
    with pytest.raises(UnknownNameError, match="did you mean 'ppo'"):
        CompareConfig("CopyToken", ("pppo",))


def test_texts_unlike_language_are_named():
    one = Estimate(1.0, 0.0, 2.0)

    def row(agent, perplexity, distinct_2):
        return Row(agent, one, one, one, one, {"perplexity": perplexity, "distinct_2": distinct_2})

    rows = [row("calm", 430.0, 0.47), row("wild", 440.0, 0.9), row("alike", 20.0, 0.46), row("both", 3000.0, 0.1), row("base", 87.0, 0.93)]
    assert doubts(rows) == {
        "wild": "perplexity 440, base 87",
        "alike": "distinct-2 0.46, base 0.93",
        "both": "perplexity 3,000, base 87; distinct-2 0.10, base 0.93",
    }
    unknown = [row("sure", float("nan"), 0.01), row("base", float("nan"), 0.05)]  # a network that knows no language
    assert doubts(unknown) == {}


def test_doubts_are_in_the_report_and_on_the_terminal(tmp_path):
    out = tmp_path / "c"
    arguments = ["ReviewContinuation", "--agents", "random", "--seeds", "2", "--tokens", "10", "--test-prompts", "8", "--workers", "1"]
    result = CliRunner().invoke(compare_command, [*arguments, "--device", "cpu", "--out", str(out)], catch_exceptions=False)
    assert "random: texts unlike the language model's (perplexity " in result.output
    assert "Read their texts first" in (out / "report.html").read_text()


def test_many_agents_are_ranked_rather_than_listed_in_pairs(tmp_path):
    def row(agent, gain):
        one = Estimate(gain, gain - 0.1, gain + 0.1)
        figures = {"perplexity": 50.0, "distinct_1": 0.5, "distinct_2": 0.9, "kl": 0.1, "length": 9.0, "stopped": 1.0}
        figures |= {"tokens_generated": 1, "tokens_trained": 1, "texts_scored": 1, "seconds": 1.0, "peak_memory": 1.0}
        return Row(agent, one, None, one, None, figures)

    gains = {"a2c": 0.0, "bc": 1.0, "dpo": 1.05, "dqn": -1.0, "grpo": 2.0, "base": 0.0}
    rows = [row(agent, gain) for agent, gain in gains.items()]
    pairs = []
    for one, other in combinations(gains, 2):
        value = gains[one] - gains[other]
        pairs.append(Pair(one, other, Estimate(value, value - 0.3, value + 0.3), Estimate(0.5, 0.4, 0.6)))
    config = CompareConfig("ReviewContinuation", tuple(gains)[:-1], 2)
    curve = [{"reward": 0.0, "gold": 0.0, "kl": 0.0, "spent": 0}]
    results = {agent: [{"rewards": [0.0], "curve": curve, "texts": [["a", "b"]]}] for agent in gains}
    comparison = Comparison(config, results, rows, pairs)
    assert [str(s) for s in comparison.standings] == [
        "grpo: better than dpo, bc, a2c, base, dqn",
        "dpo: better than a2c, base, dqn; not distinguishable from bc",
        "bc: better than a2c, base, dqn; not distinguishable from dpo",
        "a2c: better than dqn; not distinguishable from base",
        "base: better than dqn; not distinguishable from a2c",
        "dqn: worse than all others",
    ]
    write_report(comparison, tmp_path / "few.html")
    assert "class='matrix'" not in (tmp_path / "few.html").read_text()
    more = Comparison(config, results, rows, [*pairs, pairs[0]])
    write_report(more, tmp_path / "many.html")
    page = (tmp_path / "many.html").read_text()
    assert "<td class='better' title='bc - grpo: -1.00 [-1.30, -0.70], grpo is better than bc'>+1.00</td>" in page
    assert "<td class='worse' title='bc - grpo: -1.00 [-1.30, -0.70], grpo is better than bc'>-1.00</td>" in page
    assert "<td class='' title='bc - dpo: -0.05 [-0.35, 0.25], not distinguishable'>-0.05</td>" in page
