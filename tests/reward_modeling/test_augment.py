"""Augmentation: only training judgements, by seed, with the judgement kept; the paraphraser rewrites a span and backs off."""

import numpy as np
import pytest

import textgym
from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.augment import Paraphraser, with_dropped_words, with_mixed_texts, with_paraphrases
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, LabelledText, PreferencePair, RatedText
from textgym.reward_modeling.data.splits import cluster_names

TEXTS = [
    "This is a fine film with a good story.",
    "The battery life is far too short for me.",
    "A dull and lifeless story that goes on for too long.",
    "One of the best phones that I have ever had.",
]
RATED = JudgementSet(
    "ratings",
    tuple(
        RatedText(id=f"t{i}", text=text, rating=float(i), ratings=(i - 1.0, i + 1.0), split=("train", "train", "train", "test")[i])
        for i, text in enumerate(TEXTS)
    ),
    low=-4.0,
    high=4.0,
)


def test_dropped_words_keep_order_and_judgement():
    more = with_dropped_words(RATED, 0.3, copies=5, seed=1)
    assert more.items[:4] == RATED.items
    new = more.items[4:]
    assert len(new) > 10
    for item in new:
        origin = next(o for o in RATED.items if o.id == item.metadata["from"])
        assert origin.split == item.split == "train"
        assert (item.rating, item.ratings, item.group) == (origin.rating, origin.ratings, origin.id)
        words = iter(origin.text.split(" "))
        assert all(word in words for word in item.text.split(" "))  # a subsequence
        assert item.text != origin.text
    assert with_dropped_words(RATED, 0.3, copies=5, seed=1) == more != with_dropped_words(RATED, 0.3, copies=5, seed=2)
    long = JudgementSet("texts", (ExpertText(id="a", text="word " * 199 + "end", split="train"),))
    kept = [len(item.text.split()) for item in with_dropped_words(long, 0.3, copies=50).items[1:]]
    assert sum(kept) / (50 * 200) == pytest.approx(0.7, abs=0.02)


def test_a_continuation_stays_apart_from_its_prompt():
    texts = (" was  a\nfine film.\n", "s are fun", "! Good.")
    given = JudgementSet("texts", tuple(ExpertText(id=t, prompt="The movie", text=t, split="train") for t in texts))
    new = with_dropped_words(given, 0.5, copies=20).items[3:]
    assert len(new) > 20
    for item in new:
        assert item.text.startswith(" ") == item.metadata["from"].startswith(" ")
        assert item.text.endswith("\n") == item.metadata["from"].endswith("\n")
        assert set(item.text.split()) < set(item.metadata["from"].split())


def test_what_is_made_stays_with_all_that_it_was_made_from():
    names = cluster_names(RATED)
    for more in (with_dropped_words(RATED, 0.6, copies=3), with_mixed_texts(RATED, 1)):
        found = dict(zip((item.id for item in more.items), cluster_names(more), strict=True))
        for item in more.items[4:]:
            origins = item.metadata["from"] if isinstance(item.metadata["from"], list) else [item.metadata["from"]]
            assert {found[origin] for origin in origins} == {found[item.id]}
            assert found[item.id] in names  # the original's, so that its split is drawn as before
    loop = tuple(RatedText(id=a, text=a * 9, rating=0.0, metadata={"augmented": "x", "from": [b, 3]}) for a, b in ("xy", "yx"))
    assert len(set(cluster_names(JudgementSet("ratings", loop)))) == 1


def test_pairs_lose_words_on_both_sides():
    pairs = JudgementSet("pairs", (PreferencePair(id="p", chosen=TEXTS[0], rejected=TEXTS[2], margin=2.0, split="train"),))
    new = with_dropped_words(pairs, 0.4, copies=3).items[1:]
    assert new
    assert all(item.margin == 2.0 and len(item.chosen) <= len(TEXTS[0]) and len(item.rejected) <= len(TEXTS[2]) for item in new)


def test_mixed_texts_have_the_mean_rating():
    more = with_mixed_texts(RATED, 100)
    new = more.items[4:]
    assert len(new) == 3  # half of the six ordered pairs of three training texts
    for item in new:
        a, b = (next(o for o in RATED.items if o.id == name) for name in item.metadata["from"])
        assert item.text == f"{a.text} {b.text}"
        assert item.rating == (a.rating + b.rating) / 2
        assert item.ratings == ()
        assert item.split == a.split == b.split == "train"
    labels = JudgementSet("labels", tuple(LabelledText(id=f"{n}", text=f"t {n}", label="ab"[n % 2], split="train") for n in range(6)))
    for item in with_mixed_texts(labels, 5).items[6:]:
        assert {labels.items[int(name)].label for name in item.metadata["from"]} == {item.label}


def test_paraphrases_rewrite_one_span_and_keep_the_judgement():
    more = with_paraphrases(RATED, Paraphraser(max_words=3, n_candidates=4, slack=1.0), seed=0)
    new = more.items[4:]
    assert new
    for item in new:
        origin = next(o for o in RATED.items if o.id == item.metadata["from"])
        assert item.split == "train"
        assert (item.rating, item.ratings) == (origin.rating, origin.ratings)
        old, rewritten = origin.text.split(), item.text.split()
        assert len(old) == len(rewritten)
        changed = [i for i, (a, b) in enumerate(zip(old, rewritten, strict=True)) if a != b]
        assert 1 <= max(changed) - min(changed) + 1 <= 3
    assert with_paraphrases(RATED, Paraphraser(max_words=3, n_candidates=4, slack=1.0), seed=0) == more


def test_a_judge_and_no_slack_make_it_back_off():
    tried = []

    def judge(texts):
        tried.append(texts)
        return [float(text in TEXTS) for text in texts]  # every rewritten text is rated otherwise

    paraphraser = Paraphraser(max_words=4, n_candidates=2, judge=judge)
    assert paraphraser.rewrite(["", ""], TEXTS[:2], np.random.default_rng(0)) == [None, None]
    assert len(tried) == 6  # new and old texts, of spans of 4, 2 and 1 words
    assert Paraphraser().rewrite([""], ["Word"], np.random.default_rng(0)) == [None]


def test_a_reward_can_be_the_judge():
    reward = textgym.make_reward("human-rating")

    def judge(texts):
        return reward.score([textgym.Episode("", text) for text in texts])

    for item in with_paraphrases(RATED, Paraphraser(judge=judge, slack=9.0, max_shift=0.2), seed=0).items[4:]:
        origin = next(o for o in RATED.items if o.id == item.metadata["from"])
        assert abs(judge([item.text])[0] - judge([origin.text])[0]) <= 0.2


def test_wrong_options_are_refused():
    undrawn = JudgementSet("texts", (ExpertText(id="a", text="x y"),))
    pairs = JudgementSet("pairs", (PreferencePair(id="p", chosen="a", rejected="b", split="train"),))
    for call in (
        lambda: with_dropped_words(undrawn),
        lambda: with_dropped_words(RATED, 1.0),
        lambda: with_dropped_words(RATED, copies=0),
        lambda: with_mixed_texts(pairs, 1),
        lambda: with_paraphrases(pairs),
        lambda: with_paraphrases(RATED, share=0.0),
        lambda: Paraphraser(max_words=0),
        lambda: Paraphraser(slack=float("nan")),
    ):
        with pytest.raises(InvalidArgumentError):
            call()
