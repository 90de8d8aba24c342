"""Texts survive the way to token ids and back, and a continuation is exactly what it adds to its prompt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.tokenization import load_vocabulary

REVIEWS = load_vocabulary("reviews")
COPY = load_vocabulary("copy-token")
# any text that UTF-8 can hold; the tokenizer's own special tokens mean themselves
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda t: "<|endoftext|>" not in t and "<pad>" not in t)
IDS = st.lists(st.integers(0, REVIEWS.size - 1), max_size=30)


@given(TEXTS)
@settings(max_examples=300)
def test_a_prompt_decodes_to_itself(text: str) -> None:
    (ids,) = REVIEWS.encode([text])
    assert ids
    assert max(ids) < REVIEWS.size
    # the tokenizer puts one space in front of a text that has none, and takes one away again
    assert REVIEWS.decode([ids]) == [text.removeprefix(" ")]


@given(TEXTS, TEXTS)
@settings(max_examples=300)
def test_prompt_and_continuation_decode_to_both_texts(prompt: str, continuation: str) -> None:
    (prompt_ids,) = REVIEWS.encode([prompt])
    (whole_ids,) = REVIEWS.encode([prompt + " " + continuation])
    if whole_ids[: len(prompt_ids)] != prompt_ids:  # the last word of the prompt goes on
        return
    (found,) = REVIEWS.decode_continuations([prompt_ids], [whole_ids[len(prompt_ids) :]])
    assert REVIEWS.decode([prompt_ids])[0] + found == (prompt + " " + continuation).removeprefix(" ")


@given(TEXTS, IDS)
@settings(max_examples=300)
def test_whatever_is_chosen_the_prompt_stays_and_the_continuation_follows(prompt: str, chosen: list[int]) -> None:
    (prompt_ids,) = REVIEWS.encode([prompt])
    (continuation,) = REVIEWS.decode_continuations([prompt_ids], [chosen])
    assert REVIEWS.decode([prompt_ids])[0] + continuation == REVIEWS.decode([[*prompt_ids, *chosen]])[0]


@given(st.lists(st.tuples(TEXTS, IDS), max_size=5))
@settings(max_examples=50)
def test_a_batch_is_its_texts_one_by_one(pairs: list[tuple[str, list[int]]]) -> None:
    prompts = [text for text, _ in pairs]
    ids = REVIEWS.encode(prompts)
    assert ids == [REVIEWS.encode([prompt])[0] for prompt in prompts]
    assert REVIEWS.decode(ids) == [REVIEWS.decode([row])[0] for row in ids]
    chosen = [row for _, row in pairs]
    assert REVIEWS.decode_continuations(ids, chosen) == [
        REVIEWS.decode_continuations([p], [c])[0] for p, c in zip(ids, chosen, strict=True)
    ]


def test_the_leading_space_of_a_continuation_is_kept() -> None:
    (prompt,) = REVIEWS.encode(["The movie"])
    (whole,) = REVIEWS.encode(["The movie was a delight."])
    assert whole[: len(prompt)] == prompt
    assert REVIEWS.decode_continuations([prompt], [whole[len(prompt) :]]) == [" was a delight."]
    assert COPY.decode_continuations([[3, 4]], [[5, 1]]) == [" c"]


def test_every_review_prompt_decodes_to_itself() -> None:
    task = textgym.make_task("ReviewContinuation")
    for split in task.prompts:
        texts = [prompt.text for prompt in task.split(split)]
        assert REVIEWS.decode(REVIEWS.encode(texts)) == texts


def test_no_text_and_an_empty_text() -> None:
    assert REVIEWS.encode([]) == []
    assert REVIEWS.decode([]) == []
    assert COPY.encode(["", "a"]) == [[1], [3]]
    assert COPY.decode([[1], []]) == ["", ""]


def test_a_vocabulary_is_loaded_once() -> None:
    assert load_vocabulary("reviews") is load_vocabulary("reviews")


@pytest.mark.parametrize("vocabulary", [REVIEWS, COPY], ids=["reviews", "copy-token"])
def test_ends_and_padding_are_within_the_vocabulary(vocabulary: textgym.tokenization.Vocabulary) -> None:  # type: ignore[name-defined]
    assert vocabulary.eos_ids
    assert max(vocabulary.eos_ids) < vocabulary.size
    assert 0 <= vocabulary.pad_id < vocabulary.size
    assert len(vocabulary.allowed_mask) == vocabulary.size


def test_encoding_is_the_tokenizers_own_whatever_its_file_says_of_truncation_and_padding() -> None:
    vocabulary = load_vocabulary("reviews")
    texts = ["The movie", "", " a  b\n", "é<|endoftext|>x", "word " * 300]
    expected = [vocabulary.tokenizer(text)["input_ids"] or [min(vocabulary.eos_ids)] for text in texts]
    vocabulary.tokenizer.backend_tokenizer.enable_truncation(4)
    vocabulary.tokenizer.backend_tokenizer.enable_padding(length=8)
    assert vocabulary.encode(texts) == expected
