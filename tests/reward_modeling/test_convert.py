"""Conversion: pairs say what the ratings said, within a split and a prompt; classes are intervals."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.convert import ratings_to_classes, ratings_to_pairs
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText


def rated(ratings, **options):
    return JudgementSet(
        "ratings", tuple(RatedText(id=f"t{i}", text=f"text {i}", rating=float(r), **options) for i, r in enumerate(ratings))
    )


@given(
    ratings=st.lists(st.integers(-8, 8).map(lambda n: n / 2), max_size=12),
    places=st.lists(st.tuples(st.sampled_from(["train", "test"]), st.sampled_from(["", "p"])), min_size=12, max_size=12),
    gap=st.sampled_from([0.5, 1.0, 2.5]),
    tie=st.sampled_from([None, 0.0, 0.4]),
)
@settings(max_examples=200)
def test_pairs_are_all_that_are_possible(ratings, places, gap, tie):
    items = [RatedText(id=f"t{i}", text=f"text {i}", rating=r, split=places[i][0], prompt=places[i][1]) for i, r in enumerate(ratings)]
    expected = Counter()
    for i, a in enumerate(items):
        for b in items[:i]:
            high, low = (a, b) if a.rating >= b.rating else (b, a)
            if (a.split, a.prompt) != (b.split, b.prompt):
                continue
            if high.rating - low.rating >= gap:
                expected[(high.text, low.text, high.rating - low.rating)] += 1
            elif tie is not None and high.rating - low.rating <= tie:
                expected[(frozenset((a.text, b.text)), "tie", high.rating - low.rating)] += 1
    pairs = ratings_to_pairs(JudgementSet("ratings", tuple(items)), gap, tie)
    found = Counter(
        (frozenset((p.chosen, p.rejected)), "tie", p.margin) if p.tie else (p.chosen, p.rejected, p.margin) for p in pairs.items
    )
    assert found == expected


def test_a_cap_draws_evenly_and_by_seed():
    judgements = rated(np.linspace(-4, 4, 40))
    counts = Counter()
    for seed in range(300):
        pairs = ratings_to_pairs(judgements, 1.0, max_pairs=20, seed=seed)
        assert len(pairs) == 20
        counts.update(pair.id for pair in pairs.items)
    total = len(ratings_to_pairs(judgements, 1.0))
    assert len(counts) == total
    expected = 300 * 20 / total
    assert np.std([counts[name] for name in counts]) < 2 * np.sqrt(expected)
    assert ratings_to_pairs(judgements, 1.0, max_pairs=20, seed=5) == ratings_to_pairs(judgements, 1.0, max_pairs=20, seed=5)


def test_each_split_has_its_share_of_a_cap():
    train = [RatedText(id=f"a{i}", text=f"a {i}", rating=float(i), split="train") for i in range(80)]
    test = [RatedText(id=f"b{i}", text=f"b {i}", rating=float(i), split="test") for i in range(20)]
    pairs = ratings_to_pairs(JudgementSet("ratings", (*train, *test)), max_pairs=100)
    assert Counter(pair.split for pair in pairs.items) == {"train": 80, "test": 20}


def test_raters_are_compared_with_themselves():
    items = (
        RatedText(id="a", text="x", rating=2.0, ratings=(1.0, 3.0), raters=("ann", "bob")),
        RatedText(id="b", text="y", rating=2.0, ratings=(4.0, 0.0), raters=("ann", "bob")),
        RatedText(id="c", text="z", rating=9.0),
    )
    pairs = ratings_to_pairs(JudgementSet("ratings", items), 2.0, per_rater=True)
    assert {(p.rater, p.chosen, p.rejected, p.margin) for p in pairs.items} == {("ann", "y", "x", 3.0), ("bob", "x", "y", 3.0)}
    with pytest.raises(InvalidArgumentError, match="needs to know who rated"):
        ratings_to_pairs(rated([1, 2]), per_rater=True)


def test_classes_are_intervals():
    labels = ratings_to_classes(rated([-2, -1, 0, 1, 2], split="train"), [-1, 1])
    assert [item.label for item in labels.items] == ["<-1", "-1..1", "-1..1", ">=1", ">=1"]
    assert labels.classes == ("<-1", "-1..1", ">=1")
    assert {item.split for item in labels.items} == {"train"}


@pytest.mark.parametrize(
    "call",
    [
        lambda s: ratings_to_pairs(s, 0.0),
        lambda s: ratings_to_pairs(s, float("nan")),
        lambda s: ratings_to_pairs(s, 1.0, 1.0),
        lambda s: ratings_to_pairs(s, max_pairs=0),
        lambda s: ratings_to_pairs(ratings_to_classes(s, [0])),
        lambda s: ratings_to_classes(s, []),
        lambda s: ratings_to_classes(s, [1, 1]),
        lambda s: ratings_to_classes(s, [1], ["a", "a"]),
        lambda s: ratings_to_classes(s, [1], ["a"]),
    ],
)
def test_wrong_options_are_refused(call):
    with pytest.raises(InvalidArgumentError):
        call(rated([0, 1]))
