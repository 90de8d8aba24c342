"""Files of judgements: what is written is read back equal, and a malformed file is one line with file, line and field."""

import csv
import gzip
import io
import json
import math
import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from textgym.errors import InvalidArgumentError, RunDirectoryError
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, LabelledText, PreferencePair, RatedText, mean_of
from textgym.reward_modeling.data.reading import read_judgements
from textgym.reward_modeling.data.schema import SCHEMAS
from textgym.reward_modeling.data.writing import write_judgements

NAMES = ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet", "folder"]
FREE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TEXT = st.one_of(FREE, st.sampled_from(['"', "\n", "\r", "\r\n", " a,\tb ", "'", "#", "\ufeff", "None", "1", "😀"])).filter(str.strip)
NUMBER = st.floats(-100, 100)
OBJECT = st.dictionaries(
    FREE, st.one_of(st.none(), st.booleans(), st.integers(), NUMBER, FREE, st.lists(st.integers(), max_size=2)), max_size=2
)
COMMON = {"prompt": FREE, "source": FREE, "group": FREE, "split": st.sampled_from(["train", "validation", "test", ""]), "metadata": OBJECT}


@st.composite
def rated(draw):
    ratings = draw(st.lists(NUMBER, max_size=3).map(tuple))
    raters = tuple(draw(st.lists(FREE, min_size=len(ratings), max_size=len(ratings)))) if draw(st.booleans()) else ()
    rating = mean_of(ratings) if ratings else draw(NUMBER)
    common = {name: draw(strategy) for name, strategy in COMMON.items()}
    own = {"text": draw(TEXT), "rating": rating, "ratings": ratings, "raters": raters}
    return {**own, "aspects": draw(st.dictionaries(FREE, NUMBER, max_size=2)), **common}


LABELLED = st.fixed_dictionaries({"text": TEXT, "label": st.sampled_from(["good", "bad, really", "süß"]), **COMMON})
PAIRED = st.fixed_dictionaries(
    {"chosen": TEXT, "rejected": TEXT, "margin": st.none() | st.floats(0, 9), "tie": st.booleans(), "rater": FREE, **COMMON}
).map(lambda values: values if values["tie"] or values["chosen"] != values["rejected"] else {**values, "tie": True})
EXPERT = st.fixed_dictionaries({"text": TEXT, **COMMON})


@st.composite
def sets(draw):
    kind, strategy, cls = draw(
        st.sampled_from(
            [
                ("ratings", rated(), RatedText),
                ("labels", LABELLED, LabelledText),
                ("pairs", PAIRED, PreferencePair),
                ("texts", EXPERT, ExpertText),
            ]
        )
    )
    ids = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))
    items = tuple(cls(id=id_, **draw(strategy)) for id_ in ids)
    scale = {"low": -100.0, "high": 100.0} if kind == "ratings" and draw(st.booleans()) else {}
    classes = {"classes": ("good", "bad, really", "süß", "unused")} if kind == "labels" and draw(st.booleans()) else {}
    return JudgementSet(kind, items, **scale, **classes)


@pytest.mark.parametrize("name", NAMES)
@given(judgements=sets())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_round_trip(name, judgements, tmp_path):
    write_judgements(judgements, tmp_path / name)
    assert read_judgements(tmp_path / name) == judgements


def rows(kind="ratings", n=4):
    made = {
        "ratings": lambda i: {"id": f"r{i}", "text": f"text {i}", "rating": 2.0, "ratings": [1, 3], "raters": ["ann", "bob"], "low": -4, "high": 4},
        "labels": lambda i: {"id": f"l{i}", "text": f"text {i}", "label": "good", "classes": ["good", "bad"]},
        "pairs": lambda i: {"id": f"p{i}", "chosen": f"yes {i}", "rejected": f"no {i}", "margin": 1.5, "tie": False},
        "texts": lambda i: {"id": f"t{i}", "text": f"text {i}"},
    }  # fmt: skip
    return [made[kind](i) for i in range(n)]


FAULTS = [
    # kind, field, value, what the message says
    ("ratings", "rating", math.nan, "finite"),
    ("ratings", "rating", math.inf, "finite"),
    ("ratings", "ratings", [1, -math.inf], "finite"),
    ("ratings", "rating", "2", "must be a number, but is a text"),
    ("ratings", "rating", True, "must be a number, but is true or false"),
    ("ratings", "rating", 10**400, "too large"),
    ("ratings", "rating", 2.5, "mean of `ratings` is 2"),
    ("ratings", "ratings", [1, 2, 3], None),
    ("ratings", "ratings", [-1, 5], "outside the scale -4 to 4"),
    ("ratings", "ratings", 3, "a list of numbers"),
    ("ratings", "ratings", ["1", "3"], "must be a number"),
    ("ratings", "raters", ["ann"], "1 names for 2 ratings"),
    ("ratings", "raters", [1, 2], "must be a text"),
    ("ratings", "low", -5, "describes the whole set"),
    ("ratings", "text", "", "is empty"),
    ("ratings", "text", " \n", "is blank"),
    ("ratings", "text", None, "is missing"),
    ("ratings", "text", ["a"], "must be a text, but is a list"),
    ("ratings", "text", "\ud800", "surrogate"),
    ("ratings", "text", "a\0b", "NUL"),
    ("ratings", "id", "r0", "stands twice"),
    ("ratings", "id", "", "is empty"),
    ("ratings", "id", None, "is missing, but the first row has one"),
    ("ratings", "split", "dev", "train, validation, test"),
    ("ratings", "ratign", 1, "did you mean 'rating'"),
    ("ratings", "chosen", "a", "belongs to pairs"),
    ("ratings", "metadata", [], "must be an object"),
    ("ratings", "metadata", {"a": math.nan}, "JSON cannot say"),
    ("ratings", "aspects", {"tone": "high"}, "must be a number"),
    ("labels", "label", "fair", "none of the classes good, bad"),
    ("labels", "label", "", "is empty"),
    ("labels", "classes", ["good"], "describes the whole set"),
    ("pairs", "margin", -1, "swap"),
    ("pairs", "tie", "no", "true or false"),
    ("pairs", "tie", 1, "true or false"),
    ("pairs", "rejected", "yes 2", "preferred to itself"),
    ("pairs", "rejected", None, "is missing"),
    ("texts", "text", 7, "must be a text, but is a number"),
]


def refused(path, kind=None):
    with pytest.raises(InvalidArgumentError) as caught:
        read_judgements(path, kind)
    message = str(caught.value)
    assert "\n" not in message
    assert "\r" not in message
    assert message.startswith(str(path)), message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(("kind", "field", "value", "said"), FAULTS)
def test_a_fault_in_a_line_of_json_is_named(kind, field, value, said, tmp_path):
    path = tmp_path / "a.jsonl"
    lines = rows(kind)
    lines[2] = {name: v for name, v in {**lines[2], field: value}.items() if v is not None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    message = refused(path)
    # three ratings 1, 2, 3 have the right mean but one rater too few: the fault is the raters'
    named = {"ratings": "raters"}.get(field, field) if said is None else field
    assert f"line 3, field '{named}" in message
    assert said is None or said in message


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "holds no judgements"),
        ("id,text,rating\n", 1, "holds no judgements"),
        ("id,text,rating\n1,a,2\n2,b\n", 3, "field 'rating': has no cell"),
        ("id,text,rating\n1,a,2\n2,b,3,4\n", 3, "field 'rating': is followed by more cells"),
        ("id,text,rating\n1,a,2\n2,b,nan\n", 3, "field 'rating': must be a number"),
        ("id,text,rating\n1,a,2\n2,b,1_0\n", 3, "field 'rating': must be a number"),
        ('id,text,rating\n1,"a\nb\nc",2\n2,b,"3,5"\n', 5, "field 'rating': must be a number"),
        ('id,text,rating\n1,a,2\n2,"b,3\n3,c,4\n', 3, "quotes"),
        ('id,text,rating\n1,"a"b,2\n', 2, "quotes"),
        ("id;text;rating\n1;a;2\n", 1, "looks like several fields separated by ';'"),
        ("id,text,text\n1,a,2\n", 1, "field 'text': names two columns"),
        (",id,text\n0,1,a\n", 1, "has no name"),
        ("id,text,ratting\n1,a,2\n", 1, "field 'ratting'"),
        ('text,ratings\na,"[1, 2"\n', 2, "field 'ratings': is not JSON"),
        ('text,rating,ratings\na,1.5,"[1, 2]"\nb,1,"[NaN]"\n', 3, "field 'ratings': is nan"),
        ("a\rb,text\n", 1, "quotes or line breaks"),
    ],
)
def test_a_fault_in_a_table_is_named(text, line, said, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text, newline="")
    message = refused(path)
    assert f", line {line}" in message
    assert said in message


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        (b"", 1, "holds no judgements"),
        (b" \n\n", 1, "holds no judgements"),
        (b'{"text": "a", "rating": 1}\n{"text": "b", "rating": }\n', 2, "field 'rating': is not JSON"),
        (b'{"text": "a", "rating": 1}\n{"text": "b", "rat', 2, "is not JSON"),
        (b'{"text": "a", "rating": 1}\n[1]\n', 2, "expected a JSON object"),
        (b'{"text": "a", "rating": 1, "rating": 2}\n', 1, "field 'rating': stands twice"),
        (b'{"text": "a", "rating": 1}\n{"text": "b\xff", "rating": 1}\n', 2, "field 'text': byte 12 of the line (0xff) is not UTF-8"),
        ('{"text": "a"}'.encode("utf-16"), 1, "is not UTF-8"),
        (b'{"text": "a", "metadata": ' + b"[" * 100_000 + b"\n", 1, "field 'metadata': is not JSON"),
        (b'{"text": "a", "rating": ' + b"1" * 5000 + b"}\n", 1, "field 'rating'"),
        (b'{"body": "a"}\n', 1, "field 'body': says of no kind"),
        (b'{"text": "a"}\n{"text": "' + b"x" * 2**24 + b'"}\n', 2, "longer than"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(data, line, said, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    message = refused(path)
    assert f", line {line}" in message
    assert said in message


def test_bytes_that_are_not_utf_8_in_a_table_name_their_line_and_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text,rating\n1,a,2\n2,"b\nc\xe9",2\n')
    assert "line 4" in refused(path)
    path.write_bytes(b"id,text,rating\n1,a,2\n2,caf\xe9,2\n")
    assert "line 3, field 'text'" in refused(path)


def test_a_cut_or_damaged_gzip_is_refused_whole(tmp_path):
    data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows(n=2000)).encode())
    path = tmp_path / "a.jsonl.gz"
    for cut in (*range(1, 24), len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:cut])
        assert re.search(r", line \d+", refused(path))
    path.write_bytes(data[:-6] + b"\0" + data[-5:])
    refused(path)


MUTATIONS = st.sampled_from(["replace", "insert", "delete", "cut", "swap", "value"])
JUNK = st.sampled_from([b"\xff", b"\0", b'"', b",", b"\n", b"{", b"}", b"\\", b"NaN", b"1e999", b"\xc3", b"\r", b"[", b":"])
WRONG = st.sampled_from([math.nan, math.inf, None, "", " ", "x", [], {}, [None], True, -1e9, 10**400, "\ud800", {"a": []}])


@given(data=st.data(), suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet"]))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_mutated_file_is_read_whole_or_refused_in_one_line(data, suffix, tmp_path):
    kind = data.draw(st.sampled_from(["ratings", "labels", "pairs", "texts"]))
    path = tmp_path / f"a{suffix}"
    mutation = data.draw(MUTATIONS)
    lines = rows(kind)
    if mutation == "value" and suffix == ".jsonl":
        n, field = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([*lines[0], "texts", "label"]))
        lines[n][field] = data.draw(WRONG)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        good = tmp_path / f"good{suffix}"
        good_lines = tmp_path / "good.jsonl"
        good_lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_judgements(read_judgements(good_lines), good)
        raw = good.read_bytes()
        at = data.draw(st.integers(0, len(raw) - 1))
        junk = data.draw(JUNK)
        changed = {
            "replace": raw[:at] + junk + raw[at + len(junk) :],
            "delete": raw[:at] + raw[at + 1 :],
            "cut": raw[:at],
            "swap": raw[:at] + raw[at:][::-1],
        }
        path.write_bytes(changed.get(mutation, raw[:at] + junk + raw[at:]))
    try:
        found = read_judgements(path)
    except InvalidArgumentError as error:
        message = str(error)
        assert "\n" not in message
        assert message.startswith(f"{path}, ")
        assert re.search(r", (line|row) \d+", message), message
    else:  # harmless: a letter of a text, a line left out
        assert 1 <= len(found) <= 5


def as_table(lines, delimiter):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(lines[0]), delimiter=delimiter)
    writer.writeheader()
    for line in lines:
        writer.writerow({name: json.dumps(v) if isinstance(v, (list, dict)) else v for name, v in line.items()})
    return file.getvalue()


# what is no fault in a cell, where a number is written as text and lists are JSON, or one of the header
ONLY_JSON = [("rating", "2"), ("text", ["a"]), ("text", "\ud800"), ("tie", 1), ("ratign", 1), ("chosen", "a"), ("text", 7)]


@given(
    suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".tsv.gz"]),
    fault=st.sampled_from(FAULTS),
    line=st.integers(1, 4),
    n=st.integers(5, 9),
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_malformed_value_is_refused_with_file_line_and_field(suffix, fault, line, n, tmp_path):
    kind, field, value, said = fault
    table = suffix in (".csv", ".tsv.gz")
    assume(not (table and (field, value) in ONLY_JSON))
    lines = rows(kind, n)
    value = lines[line]["chosen"] if value == "yes 2" else value
    lines[line] = {name: v for name, v in {**lines[line], field: value}.items() if v is not None}
    if table:
        lines[0].setdefault(field, None)
        text = as_table(lines, "," if suffix == ".csv" else "\t")
    else:
        text = "".join(json.dumps(row) + "\n" for row in lines)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    named = "raters" if said is None else field
    assert refused(path).startswith(f"{path}, line {line + 1 + table}, field '{named}")


def test_parquet_names_row_and_field(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for columns, said in [
        ({"text": ["a", "b"], "rating": [1.0, math.nan]}, "row 2, field 'rating': is nan"),
        ({"text": ["a", None], "rating": [1.0, 2.0]}, "row 2, field 'text': is missing"),
        ({"text": ["a", "b"], "rating": ["1", "2"]}, "row 1, field 'rating': must be a number"),
        ({"text": ["a", "b"], "rating": [1, 2], "__index_level_0__": [0, 1]}, "row 1, field '__index_level_0__': is no field"),
        ({"text": ["a", "b"], "rating": [1, 2], "metadata": ["{}", "{"]}, "row 2, field 'metadata': is not JSON"),
        ({"text": [b"a", b"\xff"]}, "row 1, field 'text': must be a text"),
        ({"text": pa.array([], pa.string())}, "holds no judgements"),
    ]:
        pq.write_table(pa.table(columns), path)
        assert said in refused(path)


def test_the_hugging_face_library_reads_and_writes_our_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    written = JudgementSet("ratings", (RatedText(id="a", text="fine", rating=2.0, ratings=(1.0, 3.0), aspects={"tone": 1.0}),), -4.0, 4.0)
    write_judgements(written, tmp_path / "ours")
    assert datasets.load_from_disk(str(tmp_path / "ours"))[0]["ratings"] == [1.0, 3.0]
    table = {"text": ["fine", "poor"], "rating": [2.0, -2.0], "aspects": [{"tone": 1.0}, {"tone": None}]}
    parts = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict(table), "test": datasets.Dataset.from_dict({"text": ["so"], "rating": [0]})}
    )
    parts.save_to_disk(str(tmp_path / "theirs"))
    read = read_judgements(tmp_path / "theirs")
    assert [(item.text, item.rating, item.split, dict(item.aspects)) for item in read.items] == [
        ("fine", 2.0, "train", {"tone": 1.0}),
        ("poor", -2.0, "train", {}),
        ("so", 0.0, "test", {}),
    ]
    (next((tmp_path / "theirs/test").glob("*.arrow"))).write_bytes(b"junk")
    assert "test, row 1" in refused(tmp_path / "theirs")


def test_what_is_harmless_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbftext,rating\r\n"a, ""b""\r\nc",+1.5\r\n\r\nd, 2 \r\n')
    read = read_judgements(path)
    assert [(item.text, item.rating) for item in read.items] == [('a, "b"\r\nc', 1.5), ("d", 2.0)]
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "same", "ratings": [1, 2]}\n\n{"text": "same", "ratings": [4], "prompt": null}')
    read = read_judgements(path)
    assert [item.rating for item in read.items] == [1.5, 4]
    assert read.items[1].id == read.items[0].id + "-2"


def test_unknown_suffix_folder_and_missing_file_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    assert "call it .jsonl" in refused(tmp_path / "a.json")
    assert "no such file" in refused(tmp_path / "b.csv")
    assert "without a Hugging Face data set" in refused(tmp_path)
    with pytest.raises(InvalidArgumentError, match="kind must be one of"):
        read_judgements(tmp_path / "a.json", "rating")


def test_nothing_is_written_that_cannot_be_read(tmp_path):
    good = RatedText(id="a", text="fine", rating=1.0)
    for item in (RatedText(id="b", text="x", rating=1.0, metadata={"at": object()}), RatedText(id="b", text="\ud800", rating=1.0)):
        for name in NAMES:
            with pytest.raises(InvalidArgumentError, match="cannot be written"):
                write_judgements(JudgementSet("ratings", (good, item)), tmp_path / name)
    with pytest.raises(InvalidArgumentError, match="there are no judgements"):
        write_judgements(JudgementSet("ratings", ()), tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/precious.txt").write_text("keep")
    with pytest.raises(RunDirectoryError, match="no Hugging Face data set"):
        write_judgements(JudgementSet("ratings", (good,)), tmp_path / "notes")
    with pytest.raises(RunDirectoryError, match="cannot write"):
        write_judgements(JudgementSet("ratings", (good,)), tmp_path / "missing/a.csv")
    assert (tmp_path / "notes/precious.txt").read_text() == "keep"


def test_the_page_lists_every_field():
    from pathlib import Path

    page = (Path(__file__).resolve().parents[2] / "docs/judgements.md").read_text()
    for kind, fields in SCHEMAS.items():
        for field in fields:
            assert f"| `{field.name}` |" in page, (kind, field.name)
            assert field.meaning in page, (kind, field.name)
