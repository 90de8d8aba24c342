"""What is kept, in which order it is shown, how agreement is measured, and what is exported."""

import gzip
import json
import sqlite3
import stat
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.errors import InvalidArgumentError, MissingExtraError, RunDirectoryError
from textgym.rating.agreement import agreement
from textgym.rating.collection import Collection, Item
from textgym.rating.export import judgement_set
from textgym.rating.samples import make_items
from textgym.rating.store import Judgement, JudgementStore
from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.data.reading import read_judgements
from textgym.reward_modeling.data.writing import write_judgements

ITEMS = [Item(str(i), "p", (f"a{i}",), ("x",)) for i in range(6)]
PAIRS = [Item(str(i), "p" if i else "", (f"a{i}", f"b{i}"), ("x", "y")) for i in range(6)]


def judged(item, rater, value):
    return Judgement(item, rater, value, False, None, "")


# --- the file ----------------------------------------------------------------------------------------------------------------------


def test_a_store_is_durable_private_and_read_again_as_written(make_store, open_store):
    collection = Collection(mode="pairs", levels=3, sources=("x", "y"), seed=5, question="Ö?")
    store = make_store(collection, PAIRS, "sub/j.db")
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    store.add("Ana", "1", -3, 1.5)
    again = open_store(store.path)  # beside the first
    assert (again.collection, again.items, again.token) == (collection, PAIRS, store.token)
    assert [(j.item, j.rater, j.value, j.seconds) for j in again.judgements()] == [("1", "Ana", -3, 1.5)]
    assert sorted(p.name for p in store.path.parent.iterdir()) == ["j.db", "j.db-shm", "j.db-wal"]


def test_taking_back_keeps_every_click(make_store):
    store = make_store(Collection(), ITEMS)
    for value in (1, None, 2, 3):
        store.add("Ana", "0", value)
    assert [j.value for j in store.judgements()] == [3]
    assert store._connection.execute("SELECT value FROM clicks").fetchall() == [(1,), (None,), (2,), (3,)]


def test_what_is_no_store_is_told(tmp_path, make_store):
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        JudgementStore(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(RunDirectoryError, match=r"cannot use .*text\.db"):
        JudgementStore(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(InvalidArgumentError, match="no file of judgements"):
        JudgementStore(tmp_path / "other.db")
    make_store(Collection(), ITEMS)
    with pytest.raises(RunDirectoryError, match="exists already"):
        JudgementStore.create(tmp_path / "j.db", Collection(), ITEMS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"low": 0, "high": 0}, "2 to 11 points"),
        ({"low": 4, "high": -4}, "2 to 11 points"),
        ({"low": 0, "high": 100}, "2 to 11 points"),
        ({"levels": 0}, "levels"),
        ({"mode": "pair"}, "mode must be"),
        ({"samples": 0}, "samples must be"),
    ],
)
def test_bad_settings_are_told(settings, said):
    with pytest.raises(InvalidArgumentError, match=said):
        Collection(**settings)


@given(st.text(min_size=1, max_size=10), st.integers(0, 3), st.integers(0, 40))
def test_every_rater_has_an_order_and_sides_of_their_own_that_never_change(rater, seed, n):
    collection = Collection(mode="pairs", seed=seed)
    order, sides = collection.order(rater, n), collection.swapped(rater, n)
    assert sorted(order) == list(range(n))
    assert sum(sides) == n // 2
    assert (order, sides) == (collection.order(rater, n), collection.swapped(rater, n))
    if n > 20:
        assert order != collection.order(rater + "!", n)
        assert sides != collection.swapped(rater + "!", n)


# --- agreement ---------------------------------------------------------------------------------------------------------------------


def test_agreement_on_a_worked_example():
    # two raters, three units: (1, 1), (2, 2), (1, 2). Observed disagreement: 2 of 6 ordered pairs differ, 1/3;
    # expected: values 1, 1, 1, 2, 2, 2 give 18 of 30 differing ordered pairs, 3/5. alpha = 1 - (1/3) / (3/5) = 4/9.
    table = {"0": (1, 1), "1": (2, 2), "2": (1, 2)}
    judgements = [judged(item, rater, v) for item, values in table.items() for rater, v in zip("AB", values, strict=True)]
    found = agreement(judgements, "ratings")
    assert found.alpha == pytest.approx(4 / 9)
    assert (found.level, found.n_items) == ("interval", 3)
    alone = [*judgements, judged("3", "A", 2), judged("4", "B", 1)]  # nobody to agree with: changes nothing
    assert agreement(alone, "ratings") == found


def test_preferences_agree_whatever_their_margins():
    judgements = [
        judged("0", "A", 2),
        judged("0", "B", 1),
        judged("1", "A", -1),
        judged("1", "B", -2),
        judged("2", "A", 0),
        judged("2", "B", 0),
    ]
    found = agreement(judgements, "pairs")
    assert found.alpha == pytest.approx(1)
    assert found.level == "nominal"


@pytest.mark.parametrize(
    ("judgements", "n", "said"),
    [
        ([], 0, "no item judged by two"),
        ([judged("0", "A", 1)], 0, "no item judged by two"),
        ([judged("0", "A", 1), judged("1", "B", 2)], 0, "no item judged by two"),
        ([judged("0", "A", 1), judged("0", "B", 1)], 1, "all the same"),
    ],
)
def test_where_agreement_means_nothing_it_is_none(judgements, n, said):
    found = agreement(judgements, "ratings")
    assert (found.alpha, found.n_items) == (None, n)
    assert said in str(found)


def test_raters_who_guess_agree_as_chance_would():
    rng = np.random.default_rng(0)
    judgements = [judged(str(i), rater, int(v)) for rater in "ABC" for i, v in enumerate(rng.integers(-4, 5, 400))]
    assert abs(agreement(judgements, "ratings").alpha) < 0.1


# --- export ------------------------------------------------------------------------------------------------------------------------


def test_ratings_are_exported_with_everybodys(tmp_path, make_store):
    store = make_store(Collection(low=1, high=5), ITEMS)
    for rater, item, value in (("Ana", "0", 5), ("Ben", "0", 2), ("Ben", "3", 1), ("Ana", "4", 1), ("Ana", "4", None)):
        store.add(rater, item, value)
    found = judgement_set(store)
    assert (found.kind, found.low, found.high) == ("ratings", 1, 5)
    first, second = found.items
    assert (first.metadata["item"], first.prompt, first.text, first.source) == ("0", "p", "a0", "x")
    assert (first.rating, first.ratings, first.raters) == (3.5, (5.0, 2.0), ("Ana", "Ben"))
    assert (second.metadata["item"], second.rating) == ("3", 1)
    assert first.group == second.group != ""  # of one prompt
    write_judgements(found, tmp_path / "out.jsonl")
    assert read_judgements(tmp_path / "out.jsonl") == found


@pytest.mark.parametrize("levels", [1, 2])
def test_preferences_are_exported_one_by_one(make_store, levels):
    store = make_store(Collection(mode="pairs", levels=levels), PAIRS)
    for rater, item, value in (("Ana", "0", levels), ("Ana", "1", -levels), ("Ana", "2", 0), ("Ben", "1", 1)):
        store.add(rater, item, value)
    found = judgement_set(store)
    assert found.kind == "pairs"
    by_id = {f"{pair.metadata['item']}/{pair.rater}": pair for pair in found.items}
    assert len({pair.id for pair in found.items}) == 4
    assert list(by_id) == ["0/Ana", "1/Ana", "1/Ben", "2/Ana"]
    second = by_id["1/Ana"]
    assert (second.chosen, second.rejected, second.tie, second.rater) == ("b1", "a1", False, "Ana")
    assert second.margin == (2 if levels == 2 else None)
    assert (second.metadata["chosen_source"], second.metadata["rejected_source"]) == ("y", "x")
    assert second.metadata["chosen_side"] == ("left" if store.swapped("Ana", "1") else "right")
    assert by_id["0/Ana"].metadata["chosen_side"] == ("right" if store.swapped("Ana", "0") else "left")
    assert by_id["1/Ben"].chosen == "a1"
    assert by_id["2/Ana"].tie
    assert by_id["0/Ana"].group != second.group == by_id["1/Ben"].group


def test_exports_of_two_collections_can_be_joined(tmp_path):
    found = []
    for n in "12":
        other = [replace(item, texts=tuple(n + text for text in item.texts)) for item in ITEMS]
        store = JudgementStore.create(
            tmp_path / f"{n}.db", Collection(seed=int(n)), [*other, replace(other[0], id="again", prompt=other[0].prompt)]
        )
        for item in store.items:
            store.add("Ana", item.id, 1)
        found += judgement_set(store).items
    joined = JudgementSet("ratings", tuple(found))  # ids are unique
    assert len(joined) == 2 * (len(ITEMS) + 1)


# --- samples -----------------------------------------------------------------------------------------------------------------------


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pairs_of_two_files_have_one_prompt_and_different_texts(tmp_path):
    a = write(tmp_path / "a.jsonl", [{"prompt": "p", "text": "1"}, {"prompt": "q", "continuation": "2"}, {"prompt": "r", "text": "same"}])
    b = write(
        tmp_path / "b.jsonl", [{"prompt": "q", "text": "3", "source": "them"}, {"prompt": "r", "text": "same"}, {"prompt": "z", "text": ""}]
    )
    (item,) = make_items(Collection(mode="pairs", sources=(a, b)))
    assert (item.prompt, item.texts, item.sources) == ("q", ("2", "3"), (a, "them"))


def test_pairs_of_one_file_are_texts_of_one_prompt(tmp_path):
    rows = [{"prompt": p, "text": t} for p, t in (("p", "1"), ("q", "2"), ("p", "3"), ("p", "4"), ("q", "5"))]
    items = make_items(Collection(mode="pairs", sources=(write(tmp_path / "a.jsonl", rows),)))
    assert {(i.prompt, i.texts) for i in items} == {("p", ("1", "3")), ("q", ("2", "5"))}


def test_ratings_take_from_both_sources_alike(tmp_path):
    files = tuple(write(tmp_path / f"{n}.jsonl", [{"text": f"{n}{i}"} for i in range(30)]) for n in "ab")
    items = make_items(Collection(samples=20, sources=files))
    assert sorted(i.sources[0] for i in items) == sorted(files * 10)
    assert len({i.id for i in items}) == 20
    assert {int(i.id) % 2 for i in items if i.sources[0] == files[0]} == {0, 1}  # the ids do not tell


def test_the_seed_draws_from_the_whole_file(tmp_path):
    source = write(tmp_path / "t.jsonl", [{"prompt": f"p{i // 2}", "text": f"{i}"} for i in range(200)])
    for mode in ("ratings", "pairs"):
        drawn = [{item.texts for item in make_items(Collection(mode=mode, samples=10, sources=(source,), seed=seed))} for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert max(int(texts[0]) for texts in drawn[0]) > 60  # not the first lines alone


def test_texts_are_read_as_every_other_file_of_them(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one\xe2\x80\xa8line"}\n')  # a byte order mark, and U+2028 inside a text
    (tmp_path / "b.csv").write_text("prompt,text\nSay:, yes\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "packed"}\n'))
    texts = [make_items(Collection(sources=(str(tmp_path / name),)))[0] for name in ("a.jsonl", "b.csv", "c.jsonl.gz")]
    assert [(item.prompt, item.texts[0]) for item in texts] == [("", "one\u2028line"), ("Say:", " yes"), ("", "packed")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json\n", "line 1: .*JSON"),
        ('{"text": "a"}\n\n{"txt": "b"}\n', "line 3, field 'text': is missing"),
        ('{"text": 3}\n', "must be a text"),
        ('{"text": null}\n', "must be a text"),
        ("[1]\n", "line 1"),
        ('{"text": "\\ud800"}\n', "line 1.*surrogate"),
        ("", "no texts to judge"),
    ],
)
def test_bad_files_are_told(tmp_path, text, said):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(InvalidArgumentError, match=said):
        make_items(Collection(sources=(str(tmp_path / "t.jsonl"),)))


def test_agents_answer_the_same_prompts_with_random_numbers_of_their_own():
    settings = {"mode": "pairs", "samples": 8, "task": "ReviewContinuation", "max_new_tokens": 8}
    items = make_items(Collection(sources=("base", "base"), **settings))
    assert 6 <= len(items) <= 8  # equal texts are left out
    assert all(i.texts[0] != i.texts[1] and i.prompt and i.sources == ("base", "base") for i in items)
    once = make_items(Collection(sources=("base",), **settings))
    assert len({i.prompt for i in [*once, *items]}) <= 8
    assert once == make_items(Collection(sources=("base",), **settings))


def test_a_saved_agent_is_a_source(tmp_path):
    from textgym.agent import make_agent

    make_agent("base", "ReviewContinuation", n_envs=1).save(tmp_path / "run" / "agent")
    items = make_items(Collection(samples=3, sources=(str(tmp_path / "run"),), split="validation", max_new_tokens=5))
    assert len(items) == 3
    assert all(i.texts[0] and i.prompt for i in items)


@pytest.mark.parametrize(("source", "said"), [("base", "pass --task"), ("/nowhere", "holds no agent"), (".", "holds no agent")])
def test_what_is_no_source_is_told(source, said):
    with pytest.raises(InvalidArgumentError, match=said):
        make_items(Collection(sources=(source,)))


# --- extras ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "module"), [("starlette.applications", "app"), ("uvicorn", "server")])
def test_a_missing_extra_is_told(monkeypatch, package, module):
    for name in ("textgym.rating.app", "textgym.rating.server"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"textgym\[rate\]"):
        __import__(f"textgym.rating.{module}")


def test_a_missing_package_for_agreement_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(MissingExtraError, match=r"textgym\[rate\]"):
        agreement([], "ratings")
