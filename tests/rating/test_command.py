"""`textgym rate`: continuing, exporting, and errors of one line."""

import json
import re
import socket

import pytest
from click.testing import CliRunner

from textgym.cli.main import cli
from textgym.errors import TextgymError
from textgym.rating.collection import Collection
from textgym.rating.samples import make_items
from textgym.rating.store import JudgementStore


def fails(*arguments):
    result = CliRunner().invoke(cli, ["rate", *map(str, arguments)])
    assert isinstance(result.exception, TextgymError), result.output
    return str(result.exception)


def test_collect_stop_continue_export(rate, texts_file, tmp_path):
    db, out = tmp_path / "j.db", tmp_path / "out.jsonl"
    first = rate(texts_file, "--samples", 5, "--scale", -2, 2, "--out", db, "--port", 0)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", first.url)
    code, rest = first.interrupt()
    assert code == 0
    assert rest == f"0 judgements in {db}; go on: textgym rate --out {db}\n"
    assert "no judgements yet" in fails("--out", db, "--export", out)
    store = JudgementStore(db)
    for item in store.items:
        for rater, value in (("Ana", 2), ("Ben", 1)):
            store.add(rater, item.id, value if item.id != "1" else -2)
    store.close()
    again = rate(texts_file, "--samples", 5, "--scale", -2, 2, "--out", db, "--port", 0)  # the same command goes on
    assert "5 texts to rate, 10 judgements by 2 raters so far" in again.output
    result = CliRunner().invoke(cli, ["rate", "--out", str(db), "--export", str(out)])  # while the page is open
    assert result.exit_code == 0, result.output
    assert "5 rated texts from 10 judgements by 2 raters" in result.output
    assert "alpha 0.8" in result.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row["rating"] for row in rows} == {1.5, -2}
    assert "holds another collection" in fails(texts_file, "--samples", 6, "--out", db)


def test_errors_are_told(texts_file, tmp_path):
    assert "does not exist" in fails("--out", tmp_path / "none.db")
    assert "give no SOURCE" in fails(texts_file, "--export", "x", "--out", tmp_path / "none.db")
    assert "one or two sources" in fails(texts_file, texts_file, texts_file, "--out", tmp_path / "j.db")
    assert "2 to 11 points" in fails(texts_file, "--scale", 0, 100, "--out", tmp_path / "j.db")
    assert "cannot be read: No such file" in fails("none.jsonl", "--out", tmp_path / "j.db")
    assert "cannot write" in fails(texts_file, "--out", texts_file / "j.db")
    assert not list(tmp_path.glob("*.db*"))


def test_a_taken_port_is_told(texts_file, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert "choose another --port" in fails(texts_file, "--out", tmp_path / "j.db", "--port", other.getsockname()[1])
    assert "choose another --port" in fails("--out", tmp_path / "j.db", "--port", 99999)


@pytest.mark.parametrize("option", ["--host", "--bind"])
def test_no_option_opens_it_to_a_network(option):
    assert option not in CliRunner().invoke(cli, ["rate", "--help"]).output


def test_blank_texts_are_not_shown(tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"prompt": "p", "text": text}) + "\n" for text in ("good", " ", "", "fair")))
    items = make_items(Collection(samples=4, sources=(str(texts),)))
    assert sorted(item.texts[0] for item in items) == ["fair", "good"]
