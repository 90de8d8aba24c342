"""Splits: near-duplicates stay together, whatever the texts and their order."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import textgym_plugins
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.judgements import JudgementSet, PreferencePair, RatedText
from textgym.reward_modeling.data.near_duplicates import clusters, jaccard, near_duplicates, shingles
from textgym.reward_modeling.data.reading import read_judgements
from textgym.reward_modeling.data.splits import assign_splits, cluster_names, crossing_clusters, crossing_near_duplicates

RATINGS = Path(textgym_plugins.__file__).parent / "data/human_ratings/human_ratings.jsonl.gz"


@pytest.fixture(scope="module")
def bundled():
    return read_judgements(RATINGS)


def rated(texts, **groups):
    return JudgementSet(
        "ratings", tuple(RatedText(id=f"t{i}", text=text, rating=0.0, group=groups.get(f"t{i}", "")) for i, text in enumerate(texts))
    )


WORDS = st.lists(st.sampled_from(["a fine film", "a fine", "film", "the", "xyz", "dull and long", "!"]), min_size=1, max_size=6).map(
    " ".join
)


@given(texts=st.lists(WORDS, min_size=1, max_size=25), threshold=st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0]))
@settings(max_examples=300)
def test_the_search_finds_what_comparing_all_finds(texts, threshold):
    found = list(near_duplicates(texts, threshold))
    assert all(jaccard(texts[i], texts[j]) >= threshold for i, j in found)
    first = {}
    for i, text in enumerate(texts):
        first.setdefault(shingles(text), i)
    kept = sorted(first.values())
    expected = {frozenset((i, j)) for i in kept for j in kept if i < j and jaccard(texts[i], texts[j]) >= threshold}
    expected |= {frozenset((first[shingles(text)], i)) for i, text in enumerate(texts) if first[shingles(text)] != i}
    assert {frozenset(pair) for pair in found} == expected
    assert len(found) == len(expected)
    joined = list(range(len(texts)))  # the same as joining all pairs, one by one
    for i, j in found:
        joined = [joined[i] if name == joined[j] else name for name in joined]
    labels = clusters(texts, threshold)
    assert all((labels[i] == labels[j]) == (joined[i] == joined[j]) for i in range(len(texts)) for j in range(i))


def test_many_texts_of_one_template_are_clustered_without_comparing_all():
    texts = [f"Dear customer number {i}, thank you for your order; we will send it to you within three working days." for i in range(5000)]
    started = time.process_time()
    assert len(set(clusters(texts))) == 1
    assert time.process_time() - started < 40  # comparing all pairs takes minutes


@given(texts=st.lists(WORDS, min_size=2, max_size=25), seed=st.integers(0, 9), data=st.data())
@settings(max_examples=150)
def test_no_near_duplicates_cross_and_order_does_not_matter(texts, seed, data):
    judgements = rated([*texts, "something else altogether, so that there are two clusters", "1234567890"])
    drawn = assign_splits(judgements, seed=seed)
    for i, a in enumerate(drawn.items):
        for b in drawn.items[:i]:
            assert a.split == b.split or jaccard(a.text, b.text) < 0.8
    shuffled = replace(judgements, items=tuple(data.draw(st.permutations(judgements.items))))
    again = {item.id: item.split for item in assign_splits(shuffled, seed=seed).items}
    assert again == {item.id: item.split for item in drawn.items}


def test_new_splits_of_twenty_thousand_texts_take_seconds_and_no_near_duplicates_cross(bundled):
    copies = [replace(item, id=item.id + "~", text=item.text + " !", group="") for item in bundled.items[: 20_000 - len(bundled)]]
    judgements = replace(bundled, items=(*bundled.items, *copies))
    started = time.process_time()
    drawn = assign_splits(judgements)
    assert time.process_time() - started < 60
    assert len(drawn) == 20_000
    assert crossing_near_duplicates(drawn) == []
    counts = Counter(item.split for item in drawn.items)
    assert abs(counts["train"] / len(drawn) - 0.8) < 0.02
    groups = {}
    for item in drawn.items:
        groups.setdefault(item.group or item.id, set()).add(item.split)
    assert all(len(splits) == 1 for splits in groups.values())


def test_the_bundled_splits_stand_with_two_near_duplicate_pairs_across(bundled):
    assert Counter(item.split for item in bundled.items) == {"train": 13816, "validation": 1726, "test": 1854}
    assert (bundled.kind, bundled.low, bundled.high) == ("ratings", -4.0, 4.0)
    assert sum(len(item.ratings) for item in bundled.items) == 389_252
    assert sum(not item.ratings for item in bundled.items) == 186
    assert len(crossing_near_duplicates(bundled)) == len(crossing_clusters(bundled)) == 2


def test_groups_chains_and_pairs_hold_together():
    long = "the quick brown fox jumps over the lazy dog and runs away from here as fast as it can"
    chain = [long, long + " now", long + " now ok", "quite another thing"]
    names = cluster_names(rated(chain, t3="g", t0="g"))
    assert len(set(names)) == 1
    pairs = JudgementSet(
        "pairs",
        (
            PreferencePair(id="a", prompt="Say: ", chosen=long, rejected="no"),
            PreferencePair(id="b", prompt="Say: ", chosen="yes", rejected=long + "!"),
            PreferencePair(id="c", prompt="Say: ", chosen="perhaps not today", rejected="why should I"),
        ),
    )
    names = cluster_names(pairs)
    assert names[0] == names[1] != names[2]


def test_wrong_fractions_and_one_cluster_are_refused():
    judgements = rated(["one text", "another one"])
    for fractions in ({"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": 0.5, "dev": 0.5}, {"train": float("nan"), "test": 1.0}):
        with pytest.raises(InvalidArgumentError, match="fractions must be"):
            assign_splits(judgements, fractions)
    with pytest.raises(InvalidArgumentError, match="hang together"):
        assign_splits(rated(["one text", "One text!"]))
    assert {item.split for item in assign_splits(judgements, {"test": 1.0}).items} == {"test"}
