"""The text form of rewards: what is shown is read again, and whatever cannot be read is one clear line."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.rewards.expression import Call, parse, show, show_sum

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = NUMBERS | st.text(max_size=12)
JSON = st.recursive(
    SCALARS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[A-Za-z_~/][\w./:~-]{0,8}", fullmatch=True)
OPTIONS = st.dictionaries(st.from_regex(r"[A-Za-z_]\w{0,6}", fullmatch=True), SCALARS | st.booleans() | st.none() | JSON, max_size=3)
WEIGHTS = st.floats(0, 1e300).flatmap(lambda w: st.sampled_from([w, -w] if w else [0.0])) | st.sampled_from([1.0, -1.0])
BY_PLACE = SCALARS | st.lists(JSON, max_size=2) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)


def sums(calls: Any) -> Any:
    return st.lists(st.tuples(WEIGHTS, calls), min_size=1, max_size=3)


CALLS = st.recursive(
    st.builds(Call, NAMES, st.just(()), OPTIONS),
    lambda inner: st.builds(Call, NAMES, st.lists(sums(inner) | BY_PLACE, max_size=2).map(tuple), OPTIONS),
    max_leaves=4,
)


@settings(max_examples=150)
@given(sums(CALLS))
def test_what_is_shown_is_read_again(summands: Any) -> None:
    assert parse(show_sum(summands)) == summands


@settings(max_examples=400)
@given(st.text(max_size=60) | st.text("ab-+*(),=.0123e'\"[]{}\\ \n~/:", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    message = ""
    try:
        again = show_sum(parse(text))
    except textgym.InvalidArgumentError as error:
        message = str(error)
    else:
        assert show_sum(parse(again)) == again
    assert len(message.splitlines()) <= 1
    assert len(message) < 700


@settings(max_examples=100)
@given(st.text(max_size=40) | st.text("lengthclip-+*(),=.01 ", max_size=40))
def test_make_reward_of_any_text_gives_one_line_at_most(text: str) -> None:
    message = ""
    try:
        textgym.make_reward(text)
    except textgym.TextgymError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("human-rating", [(1.0, Call("human-rating"))]),
        ("human-rating + 0.2*fluency - 0.1*repetition", [(1.0, Call("human-rating")), (0.2, Call("fluency")), (-0.1, Call("repetition"))]),
        ("-length(target=20)", [(-1.0, Call("length", (), {"target": 20}))]),
        ("2 * a(b + c, -1, 2.5)", [(2.0, Call("a", ([(1.0, Call("b")), (1.0, Call("c"))], -1, 2.5)))]),
        ("a('x y', \"it's\", k=word)", [(1.0, Call("a", ("x y", "it's"), {"k": "word"}))]),
        ('a(k=true, l=None, m=[1, {"b": 2}])', [(1.0, Call("a", (), {"k": True, "l": None, "m": [1, {"b": 2}]}))]),
        (r"a('it\'s \\ here')", [(1.0, Call("a", (r"it's \ here",)))]),
        ("a([], {})", [(1.0, Call("a", ([], {})))]),
    ],
)
def test_reading(text: str, expected: Any) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a reward at the beginning, got 'the end'"),
        ("a +", "expected the name of a reward after 'a \\+'"),
        ("a-0.5*b", "with spaces around it"),
        ("a b", "expected \\+, - or the end after 'a', got 'b'"),
        ("0.5 a", "expected a \\* after the weight"),
        ("a(", "expected the name of a reward after 'a\\('"),
        ("a(k=1, 2)", "arguments by place come first"),
        ("a(k=1, k=2)", "expected k only once"),
        ("a('b", "expected a closing '"),
        ("a(k=[1, NaN])", "a JSON list or object of finite numbers"),
        ("1e999*a", "a number that is not so large"),
        ("a(k=" + "9" * 5000 + ")", "a number that is not so large"),
        ("a(" * 1000, "at most 32 brackets in brackets"),
        ("a(k=" + "[" * 100_000, "a JSON list or object"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=message) as caught:
        parse(text)
    assert len(str(caught.value)) < 700


def test_a_weight_is_shown_exactly() -> None:
    assert show_sum([(0.1234567891, Call("a")), (-2.0, Call("b"))]) == "0.1234567891*a - 2*b"
    assert textgym.make_reward({"length": 0.1234567891}).name == "0.1234567891*length"
    assert show(Call("a", ([(1.0, Call("b"))], 2), {"c": "d"})) == "a(b, 2, c='d')"


def test_a_text_makes_the_reward_it_says() -> None:
    reward = textgym.make_reward("human-rating + 0.2*clip(length(unit=words), 0, 3) - 0.1*repetition")
    episode = textgym.Episode("The movie", " was great great great great.")
    total, values = reward.score_terms([episode])
    assert set(values) == {"human-rating", "clip(length(unit='words'), 0, 3)", "length(unit='words')", "repetition"}
    assert values["length(unit='words')"].tolist() == [5.0]
    assert total[0] == values["human-rating"][0] + 0.2 * 3.0 - 0.1 * values["repetition"][0]
    assert textgym.make_reward(reward.name).name == reward.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip(length, 'a', 2)", "clip: low must be a finite number, got 'a'"),
        ("clip(length, 2, 1)", "low must be below high"),
        ("scale(length, 0)", "factor must not be 0"),
        ("normalize(length, limit=-1)", "limit must be above 0"),
        ("ensemble(length)", "at least two rewards"),
        ("ensemble(length, length)", "names must differ"),
        ("ensemble(length, vader, how=max)", "how must be one of mean, min, mean-std"),
        ("non-empty(length, none)", "unknown reward 'none'"),
        ("length-penalty(per_token=0)", "per_token must be above 0"),
        ("length-penalty(free=1.5)", "free must be an integer"),
        ("shaping(length, 1.5)", "gamma must be above 0 and at most 1"),
        ("shaping(length + vader)", "the potential must be a single reward"),
        ("clip(vader + shaping(vader), 0, 1)", "shaping.vader. pays along the way"),
        ("served(length, timeout=soon)", "timeout must be a number"),
        ("served(length, on_failure=ignore)", 'on_failure must be "fail" or "drop"'),
        ("cached(length, [1])", "path must be the name of a file"),
        ("cached(normalize(length), 'x.sqlite')", "moves in training"),
        ("length([1, 2], 3, 4, 5)", "cannot be made from"),
        ("length(target=soon)", "reward 'length': target must be a number, got 'soon'"),
        ("keyword(words=3)", "'keyword' cannot be made from .*words=3.*TypeError: 'int' object is not iterable"),
        ("length + length", "occurs twice"),
        ("clip(lenght, 0, 1)", "unknown reward 'lenght': did you mean 'length'"),
        ("", "expected the name of a reward"),
        ("x" * 5000, "unknown reward"),
        ("a\0b", "cannot read the reward"),
    ],
)
def test_a_reward_that_cannot_be_made_is_one_line(text: str, message: str) -> None:
    with pytest.raises(textgym.TextgymError, match=message) as caught:
        textgym.make_reward(text)
    assert len(str(caught.value).splitlines()) == 1
