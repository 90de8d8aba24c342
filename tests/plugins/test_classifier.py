"""The reward "classifier" on tiny real models: a BERT with named labels, and a decoder with one output and no padding token."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

import textgym
from textgym.rewards.conformance import check_reward

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "movie", "was", "fine", "good", "bad", "not", "a", "it", ".", "and", "very", "2"]
EPISODES = [
    textgym.Episode("the movie", text) for text in (" was good", "", " was bad . and not very fine . it was a bad movie and not good", " 2")
]


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if "cls_token" in options:
        backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **options)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    names = {0: "NEGATIVE", 1: "POSITIVE", 2: "MIXED"}
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        num_labels=3,
        id2label=names,
        label2id={name: i for i, name in names.items()},
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertForSequenceClassification(config).save_pretrained(folder)
    names_of_inputs = ["input_ids", "token_type_ids", "attention_mask"]
    read = tokenizer(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", model_max_length=24, model_input_names=names_of_inputs)
    read.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=24,
        num_labels=1,
        eos_token_id=3,
        bos_token_id=3,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("decoder")
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer(eos_token="[SEP]").save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("which", "options"), [("bert", {"label": "POSITIVE"}), ("bert", {"label": 2, "pair": True}), ("decoder", {})])
def test_is_sound(which: str, options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    results = check_reward("classifier", path=folder, **options)
    assert not [result for result in results if result.status == "failed"]


def test_equals_the_model_itself_one_text_at_a_time(bert: str) -> None:
    model, read = BertForSequenceClassification.from_pretrained(bert).eval(), tokenizer(cls_token="[CLS]", sep_token="[SEP]")
    expected = []
    for episode in EPISODES:
        with torch.no_grad():
            logits = model(torch.tensor([read(episode.text)["input_ids"]])).logits[0]
        expected.append(float(logits.softmax(-1)[1]))
    found = textgym.make_reward("classifier", path=bert, label="POSITIVE").score(EPISODES)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.01
    singles = [textgym.make_reward("classifier", path=bert, label=1, batch_size=1).score([e])[0] for e in EPISODES]
    np.testing.assert_allclose(found, singles, atol=1e-5)


def test_three_labels_are_probabilities_of_one_text(bert: str) -> None:
    each = [textgym.make_reward("classifier", path=bert, label=i).score(EPISODES) for i in range(3)]
    np.testing.assert_allclose(sum(each), 1.0, atol=1e-5)


def test_pair_tells_the_model_which_part_is_which(bert: str) -> None:
    model = BertForSequenceClassification.from_pretrained(bert).eval()
    ids = torch.tensor([[2, 4, 5, 3, 6, 8, 3]])  # [CLS] the movie [SEP] was good [SEP]
    with torch.no_grad():
        logits = model(ids, token_type_ids=torch.tensor([[0, 0, 0, 0, 1, 1, 1]])).logits[0]
    found = textgym.make_reward("classifier", path=bert, label=0, pair=True).score(EPISODES[:1])
    assert found[0] == pytest.approx(float(logits.softmax(-1)[0]), abs=1e-5)


def test_a_folder_is_a_reward_by_itself_and_its_single_logit_the_score(decoder: str) -> None:
    model = GPT2ForSequenceClassification.from_pretrained(decoder).eval()
    expected = []
    for episode in EPISODES:
        ids = [WORDS.index(word) for word in episode.text.split()]
        with torch.no_grad():
            hidden = model.transformer(torch.tensor([ids])).last_hidden_state[0, -1]
            expected.append(float(model.score(hidden)))
    reward = textgym.make_reward(decoder)
    np.testing.assert_allclose(reward.score(EPISODES), expected, atol=1e-5)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(reward)).score(EPISODES), expected, atol=1e-5)
    assert np.isfinite(reward.score([textgym.Episode("", "")])).all()


def test_a_long_text_is_read_from_its_end(decoder: str) -> None:
    long = textgym.Episode("the movie " * 50, " was very good")
    cut = textgym.Episode("", long.text.split(" ", 100 + 3 - 24)[-1])
    reward = textgym.make_reward(decoder)
    assert reward.score([long])[0] == pytest.approx(reward.score([cut])[0], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, r"label must be one of NEGATIVE \(0\), POSITIVE \(1\), MIXED \(2\), got None"),
        ({"label": "GOOD"}, "got 'GOOD'"),
        ({"label": 3}, "got 3"),
        ({"label": "score"}, "got 'score'"),
        ({"label": 0, "batch_size": 0}, "batch_size and max_length"),
        ({"label": 0, "dtype": "float33"}, "dtype must be"),
    ],
)
def test_wrong_options_are_one_line(bert: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=f"^classifier: .*{line}"):
        textgym.make_reward("classifier", path=bert, **options)


def test_no_other_folder_is_read(tmp_path: Path, bert: str) -> None:
    from textgym_plugins.classifier import Classifier

    assert Classifier.reads_folder(Path(bert))
    assert not Classifier.reads_folder(tmp_path)
    for text in ('{"architectures": ["GPT2LMHeadModel"]}', '{"architectures": null}', "[]", "{"):
        (tmp_path / "config.json").write_text(text)
        assert not Classifier.reads_folder(tmp_path)
    with pytest.raises(textgym.InvalidArgumentError, match="is no folder of a model"):
        textgym.make_reward("classifier", path=str(tmp_path))


def test_weights_that_are_a_pickle_are_refused(tmp_path: Path, bert: str) -> None:
    for file in Path(bert).glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(BertForSequenceClassification.from_pretrained(bert).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(textgym.InvalidArgumentError, match=r"^classifier: .*safetensors"):
        textgym.make_reward("classifier", path=str(tmp_path), label=0)
