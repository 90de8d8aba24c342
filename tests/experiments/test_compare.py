"""A small comparison from the command line: files, table, report, and going on after an interruption."""

import csv
import shutil

import pytest

from tests.preloaded import textgym_command


@pytest.mark.slow
def test_compare_writes_table_and_report_and_continues(tmp_path):
    arguments = ["compare", "ReviewContinuation", "--agents", "reinforce", "--seeds", "2", "--tokens", "100", "--test-prompts", "8"]
    arguments += ["--max-new-tokens", "6", "--n-envs", "4", "--device", "cpu", "--out", str(tmp_path / "c")]
    first = textgym_command(*arguments)
    assert first.returncode == 0, first.stderr
    assert "reinforce - base:" in first.stdout
    with open(tmp_path / "c" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["agent"], r["seed"]) for r in rows] == [("reinforce", "0"), ("reinforce", "1"), ("base", "0"), ("base", "1")]
    assert all(abs(float(r["kl"])) < 1e-5 for r in rows if r["agent"] == "base")
    page = (tmp_path / "c" / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert "http" not in page.replace("http-equiv", "")
    results = (tmp_path / "c" / "results.csv").read_text()
    shutil.rmtree(tmp_path / "c" / "runs" / "reinforce-1")  # as if it had never run
    assert textgym_command(*arguments).returncode == 0
    columns = [
        i for i, name in enumerate(results.splitlines()[0].split(",")) if name not in ("tokens_per_second", "seconds", "peak_memory")
    ]
    again = (tmp_path / "c" / "results.csv").read_text()
    assert [[r.split(",")[i] for i in columns] for r in again.splitlines()] == [
        [r.split(",")[i] for i in columns] for r in results.splitlines()
    ]
    other = textgym_command(*[a if a != "100" else "101" for a in arguments])
    assert other.returncode == 2
    assert "another comparison" in other.stderr
