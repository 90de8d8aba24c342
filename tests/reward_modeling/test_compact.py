"""The compact scorer: numpy scores what torch learnt, one text alone as among others; words of the teacher's are known without a judgement."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.scorers.compact import Compact, _full
from textgym.reward_modeling.scorers.compact_model import BLOCKS, LONGEST_TEXT, UNKNOWN, FeatureIndex
from textgym.reward_modeling.scorers.text_features import tokens
from textgym.reward_modeling.scorers.transformer import Transformer

from .conftest import made_up_texts

SMALL = {"size": 8, "filters": 6}
TEXTS = [*made_up_texts(20, 5), "", "!", "not a wonderful film, but lovely", "мир 🙂 naïve", "wonderful " * 400]


@pytest.fixture(scope="module")
def fitted(ratings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compact") / "reward"
    return fit_reward_model(ratings, folder, scorer="compact", settings=FitSettings(epochs=4, batch_size=16, scorer=SMALL)).reward, folder


def test_numpy_scores_what_torch_computes(fitted):
    scorer = fitted[0].scorer
    prepared = scorer.prepare(TEXTS)
    with torch.no_grad():
        by_numpy = scorer(prepared)
        scorer.load_state_dict(_full(scorer.state()))  # what is kept is rounded
    by_torch = scorer(prepared)
    assert by_torch.requires_grad
    assert not by_numpy.requires_grad
    assert by_numpy.std() > 0.1
    np.testing.assert_allclose(by_numpy, by_torch.detach(), rtol=0, atol=1e-5)


def test_a_text_scores_the_same_alone_to_the_last_bit(fitted):
    reward, folder = fitted
    together = reward.score_texts(TEXTS)
    assert together.tolist() == [reward.score_texts([text])[0] for text in TEXTS]
    assert together[::-1].tolist() == reward.score_texts(TEXTS[::-1]).tolist()
    assert together.tolist() == FittedReward(str(folder)).score_texts(TEXTS).tolist()
    assert reward.score_texts([]).shape == (0,)


def test_what_is_kept_is_small_and_plain(fitted):
    _, folder = fitted
    assert set(json.loads((folder / "vocabulary.json").read_text())) == {"words", "features", "damping"}
    kept = fitted[0].scorer.state()
    assert kept["vectors.int8"].dtype == torch.int8
    assert {value.dtype for name, value in kept.items() if not name.startswith(("vectors.", "idf."))} == {torch.float16}
    names = ["history.json", "reward_model.json", "training_texts.txt", "vocabulary.json", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_gradients_are_those_of_finite_differences(ratings):
    torch.manual_seed(0)
    scorer = Compact(1, **SMALL)
    prepared = scorer.begin([item.text for item in ratings.items][:30])[:4]
    scorer.eval().double()
    for entry in range(4):
        prepared[entry] = prepared[entry]._replace(
            negated=prepared[entry].negated.astype(np.float64), values=prepared[entry].values.astype(float)
        )
    nudged = [scorer.gain, scorer.vectors.weight, scorer.negation, scorer.limit, scorer.convolutions[1].weight]

    def loss():
        return (scorer(prepared) ** 2).sum()

    with torch.no_grad():
        scorer.linear.normal_()
    gradients = torch.autograd.grad(loss(), nudged)
    for weights, gradient in zip(nudged, gradients, strict=True):
        place = int(gradient.abs().argmax())
        flat = weights.detach().view(-1)
        values = []
        for sign in (1, -1):
            flat[place] += sign * 1e-6
            values.append(float(loss().detach()))
            flat[place] -= sign * 1e-6
        assert float(gradient.view(-1)[place]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_features_are_counted_once_and_weighted_by_hand():
    index = FeatureIndex.of(["good film", "good good plot", "bad film"], (), 1)
    read = index.read(["good good unheard"])[0]
    number = index.features["words"].index("good")
    idf = np.log(4 / 3) + 1
    counts = {"good": 2, "film": 2, "plot": 1, "bad": 1}
    damping = 0.1 * sum(n / 3 * (np.log(4 / (1 + n)) + 1) ** 2 for n in counts.values())
    assert list(read.features).count(number) == 1
    assert read.values[list(read.features).index(number)] == pytest.approx(idf / np.sqrt(idf**2 + damping))
    assert read.words.tolist() == [index.words.index("good") + 1, UNKNOWN]  # what is said twice running is read once
    assert index.read(["not good"])[0].negated.tolist() == [0, 1]
    assert len(index.read(["good plot " * 1000])[0].words) == LONGEST_TEXT


INDEX = FeatureIndex.of(made_up_texts(20, 5), ("extra",), 1)


@given(st.text(max_size=200))
def test_any_text_can_be_read(text):
    read = INDEX.read([text])[0]
    assert len(read.words) == len(read.negated) == max(1, len([token for token, _ in itertools.groupby(tokens(text))][:LONGEST_TEXT]))
    assert len(read.features) == len(read.values) == len(set(read.features.tolist()))
    assert np.isfinite(read.values).all()
    assert np.all(read.features < INDEX.n_features)


def test_the_index_knows_given_words_and_common_ones():
    index = FeatureIndex.of(["good film", "good plot"], ("marvellous",), 2)
    assert index.words == ["good", "marvellous"]
    assert index.features["words"] == ["good"]
    assert set(index.features) == set(BLOCKS)


def test_vectors_begin_as_the_larger_models(ratings, tmp_path, monkeypatch):
    known = Transformer.words
    monkeypatch.setattr(Transformer, "words", lambda scorer: known(scorer)[::20])  # to be quick
    teacher = tmp_path / "teacher"
    fit_reward_model(ratings, teacher, scorer="transformer", settings=FitSettings(epochs=1, scorer={"model": "reviews"}))
    scorer = Compact(1, vectors=str(teacher), size=32)
    scorer.begin([item.text for item in ratings.items])
    source = FittedReward(str(teacher)).scorer
    assert set(source.words()) <= set(scorer.index.words)
    words = scorer.index.words[:60]
    with torch.no_grad():
        theirs = source.embed(source.prepare(words))
        every = source.embed(source.prepare(scorer.index.words))
        ours = scorer.vectors.weight[1:61].clone()
        theirs = theirs - every.mean(0)
    distances = torch.cdist(ours, ours)[0, 1:], torch.cdist(theirs, theirs)[0, 1:]
    assert np.corrcoef(distances[0].numpy(), distances[1].numpy())[0, 1] > 0.9  # principal components keep what matters
    assert not scorer.vectors.weight[UNKNOWN].detach().any()
    with pytest.raises(textgym.InvalidArgumentError, match="size is 4096"):
        Compact(1, vectors=str(teacher), size=4096).begin(["a b"])


@pytest.mark.parametrize("wrong", [{"size": 0}, {"filters": 0}, {"min_texts": 0}, {"penalty": -1.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(textgym.InvalidArgumentError, match=r"^compact: "):
        Compact(1, **wrong)


def test_the_wide_part_judges_training_texts_as_if_it_had_not_seen_them(ratings):
    torch.manual_seed(0)
    scorer = Compact(1, **SMALL)
    items = ratings.split("train").items
    worths = np.array([[item.rating] for item in items])
    prepared = scorer.begin([item.text for item in items], worths)
    seen = scorer.prepare([item.text for item in items])
    assert all(entry.wide is None for entry in seen)
    device = torch.device("cpu")
    apart, fitted = (scorer._wide(entries, device).numpy()[:, 0] for entries in (prepared, seen))
    error = [np.mean((said - (worths[:, 0] - worths.mean()) / worths.std()) ** 2) for said in (apart, fitted)]
    assert error[1] < error[0] < 0.8


def test_copies_of_a_training_text_are_left_out_with_it():
    rng = np.random.default_rng(0)
    texts = [" ".join("".join(rng.choice(list("abcdefgh"), 5)) for _ in range(6)) for _ in range(60)]
    drawn = rng.integers(60, size=300).tolist()
    worths = rng.normal(size=60)[drawn][:, None]
    prepared = Compact(1, **SMALL, min_texts=1).begin([texts[i] for i in drawn], worths)
    assert np.corrcoef([float(entry.wide[0]) for entry in prepared], worths[:, 0])[0, 1] < 0.2  # a leak makes it rise
