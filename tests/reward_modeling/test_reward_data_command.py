"""`textgym reward data`: says what is in a file, converts it, and ends with one line where it is at fault."""

import pytest

from textgym.cli.main import main
from textgym.reward_modeling.data.reading import read_judgements


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["textgym", "reward", "data", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("text,rating,ratings,source\n" + "".join(f'film {"abcdefghij"[n] * 9},{n},"[{n}, {n}]",web\n' for n in range(10)))
    return path


def test_it_says_what_is_there_and_converts(table, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, table)
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["ratings"] == "10"
    assert "20, 2 to 2 a text" in out
    target = table.with_name("out.parquet")
    code, out, _ = run(monkeypatch, capsys, table, "--split", "0.5,0.2,0.3", "--pairs", "2", "--convert", target)
    assert code == 0
    assert str(target) in out
    assert read_judgements(target).kind == "pairs"
    code, out, _ = run(monkeypatch, capsys, table, "--classes", "3,6", "--convert", table.with_name("c.tsv.gz"))
    assert "<3 3, 3..6 3, >=6 4" in out
    assert read_judgements(table.with_name("c.tsv.gz")).classes == ("<3", "3..6", ">=6")


def test_training_judgements_are_augmented_before_they_are_converted(table, monkeypatch, capsys):
    target = table.with_name("more.jsonl")
    arguments = ("--split", "0.6,0.2,0.2", "--drop-words", "0.5", "--mix", "4", "--paraphrase", "0.4", "--judge", "vader")
    code, out, err = run(monkeypatch, capsys, table, *arguments, "--convert", target)
    assert code == 0, err
    found = read_judgements(target).items
    assert {item.metadata["augmented"] for item in found[10:]} >= {"dropped", "mixed"}
    assert {item.split for item in found[10:]} == {"train"}
    assert "mixed 4" in out
    code, out, err = run(monkeypatch, capsys, table, "--split", "1,0,0", "--mix", "4", "--pairs", "2", "--ties", "0", "--convert", target)
    assert code == 0, err
    pairs = read_judgements(target).items
    assert any(pair.tie for pair in pairs)
    assert any("+" in pair.metadata["chosen_id"] for pair in pairs)  # of a mixed text


def test_raters_are_compared_one_by_one(tmp_path, monkeypatch, capsys):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(f'{{"text": "t{n}", "ratings": [{n}, {-n}], "raters": ["ann", "bob"], "split": "train"}}\n' for n in (1, 3)))
    code, _, err = run(monkeypatch, capsys, path, "--pairs", "1", "--per-rater", "--convert", tmp_path / "p.jsonl")
    assert code == 0, err
    assert {(pair.rater, pair.chosen) for pair in read_judgements(tmp_path / "p.jsonl").items} == {("ann", "t3"), ("bob", "t1")}
    for idle in (("--ties", "0.5"), ("--per-rater",), ("--judge", "vader")):
        code, _, err = run(monkeypatch, capsys, path, *idle)
        assert code == 2
        assert idle[0] in err


def test_a_fault_is_one_line_and_nothing_is_written(table, monkeypatch, capsys):
    table.write_text(table.read_text() + "film z,nan,,web\n")
    code, out, err = run(monkeypatch, capsys, table, "--convert", table.with_name("out.jsonl"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{table}, line 12, field 'rating': must be a number" in err
    assert not table.with_name("out.jsonl").exists()
    for words in (["--split", "1,2"], ["--split", "a,b,c"], ["--pairs", "1", "--classes", "1"], ["--kind", "rating"]):
        code, _, err = run(monkeypatch, capsys, table, *words)
        assert (code, err.count("\n")) == (2, 1)
