"""Explanations: exact for sums, complete for anything, and shown as they are."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.cli.main import cli
from textgym.reward_modeling.explanation.explanation import explain, influential_words
from textgym.reward_modeling.explanation.integrated_gradients import integrated_gradients
from textgym.reward_modeling.explanation.view import write_explanations
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.objectives import SquaredError
from textgym.reward_modeling.scorers.scorer import Scorer, TokenView
from textgym.rewards import make_reward

POINTS = {"great": 2.0, "dull": -1.5, "plot": 0.0}


def additive(episodes: Sequence[textgym.Episode]) -> Any:
    return np.array([1 + sum(POINTS.get(word.strip(".,"), 0.0) for word in e.text.split()) for e in episodes])


def negating(episodes: Sequence[textgym.Episode]) -> Any:
    """ "not" turns the sign of everything: no sum of words."""
    return np.array([(additive([e])[0] - 1) * (-1 if "not" in e.text.split() else 1) for e in episodes])


@pytest.mark.parametrize("method", ["shapley", "occlusion"])
def test_a_sum_of_words_is_taken_apart_exactly(method: str) -> None:
    found = explain(additive, textgym.Episode("A dull plot,", " but great."), method)
    assert found.words == ("A", " dull", " plot,", " but", " great.")
    np.testing.assert_allclose(found.attributions, [0, -1.5, 0, 0, 2], atol=1e-12)
    assert (found.score, found.baseline) == (1.5, 1)
    assert found.residual == pytest.approx(0, abs=1e-12)


def test_shapley_is_the_mean_over_all_orders_and_occlusion_leaves_a_residual() -> None:
    words = ["not", " great", " dull"]
    exact = np.zeros(3)
    for order in itertools.permutations(range(3)):
        before: set[int] = set()
        for i in order:
            texts = ["".join(words[j] for j in range(3) if j in kept) for kept in (before, before | {i})]
            low, high = negating([textgym.Episode("", t) for t in texts])
            exact[i] += (high - low) / math.factorial(3)
            before |= {i}
    episode = textgym.Episode("", "".join(words))
    found = explain(negating, episode, n_permutations=4000)
    np.testing.assert_allclose(found.attributions, exact, atol=4 * found.standard_error.max() + 1e-9)
    assert found.standard_error.max() < 0.05
    assert found.residual == pytest.approx(0, abs=1e-12)
    assert abs(explain(negating, episode, "occlusion").residual) > 0.5


@settings(max_examples=60)
@given(st.text(max_size=40), st.text(max_size=40))
def test_words_put_together_are_the_text_and_the_parts_add_up(prompt: str, continuation: str) -> None:
    episode = textgym.Episode(prompt, continuation)
    odd = lambda episodes: np.array([math.sin(7 * len(e.text)) + e.text.count("a") for e in episodes])  # noqa: E731
    if not (prompt + continuation):
        with pytest.raises(textgym.InvalidArgumentError, match="no word"):
            explain(odd, episode)
        return
    found = explain(odd, episode, n_permutations=4)
    assert "".join(found.prompt_words) == prompt
    assert "".join(found.continuation_words) == continuation
    assert found.residual == pytest.approx(0, abs=1e-9)


def test_the_words_that_move_the_bundled_reward() -> None:
    score = textgym.make_reward("human-rating").score
    found = explain(score, textgym.Episode("", "The acting is wonderful but the story is terrible."))
    by_word = dict(zip([w.strip(" .") for w in found.words], found.attributions, strict=True))
    assert by_word["wonderful"] == max(by_word.values()) > 0.5
    assert by_word["terrible"] == min(by_word.values()) < -0.5
    texts = [textgym.Episode("", f"{a} {b}") for a in ("A great", "One terrible", "The plain") for b in ("film.", "story!", "day")]
    ranked = [i.word for i in influential_words(score, texts, min_count=3)]
    assert (ranked[0], ranked[-1]) == ("great", "terrible")


@pytest.mark.parametrize(("options", "part"), [({"method": "magic"}, "one of shapley, occlusion"), ({"n_permutations": 1}, "at least 2")])
def test_bad_input_is_one_line(options: dict[str, Any], part: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=part):
        explain(additive, textgym.Episode("", "a"), **options)


def test_the_page_shows_words_with_their_parts_and_no_markup_of_theirs(tmp_path: Path) -> None:
    write_explanations([explain(additive, textgym.Episode("<b>", " great"))], tmp_path / "why.html", "sum", "shapley")
    page = (tmp_path / "why.html").read_text()
    assert "title='+2.000'" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


# --- integrated gradients ------------------------------------------------------------------------------------------------------------

GRADIENT_MODELS = {
    "transformer": FitSettings(epochs=2, batch_size=16, scorer={"model": "reviews"}, length_debias="residual"),
    "lora": FitSettings(epochs=1, batch_size=16, scorer={"model": "reviews", "lora_rank": 2}),
    "lm-linear": FitSettings(epochs=8, batch_size=16),
}


@pytest.mark.parametrize("name", GRADIENT_MODELS)
def test_integrated_gradients_add_up_to_the_score(name: str, ratings: Any) -> None:
    fitted = fit_reward_model(ratings, scorer="transformer" if name == "lora" else name, settings=GRADIENT_MODELS[name]).reward
    episode = textgym.Episode("The lovely film,", " awful table 🙂  dull")
    found = integrated_gradients(make_reward(fitted), episode, n_steps=200)
    assert found.words == ("The", " lovely", " film,", " awful", " table", " 🙂", "  dull")
    assert found.score == pytest.approx(fitted.score([episode])[0], abs=1e-4)
    assert abs(found.residual) < 0.08  # a hundredth of the range
    assert np.abs(found.attributions).max() > 0
    if name == "transformer":
        by_word = dict(zip(found.words, found.attributions, strict=True))
        assert by_word[" lovely"] > by_word[" awful"]
        with pytest.raises(textgym.InvalidArgumentError, match="take more than 2 steps"):
            integrated_gradients(fitted, episode, n_steps=2, tolerance=1e-6)
        both = integrated_gradients(FittedEnsemble.of([fitted, fitted]), episode, n_steps=200)
        np.testing.assert_allclose(both.attributions, found.attributions, atol=1e-5)


def test_gradients_of_a_linear_head_are_exact() -> None:
    """Of a score that is linear in the embeddings, a word's part is what its embeddings add, whatever the steps."""
    fitted = _linear_model()
    found = integrated_gradients(fitted, textgym.Episode("", "ab c"), n_steps=2)
    np.testing.assert_allclose(found.attributions, [0.1 + 0.2, 0.0 + 0.3], atol=1e-6)
    assert found.residual == pytest.approx(0, abs=1e-6)


def _linear_model() -> FittedReward:
    """A score that is the sum over characters of what each is worth: a 0.1, b 0.2, c 0.3."""

    class Characters(Scorer):
        name = "characters"
        n_outputs = 1

        def settings(self) -> dict[str, Any]:
            return {}

        def prepare(self, texts: Sequence[str]) -> Any:
            return list(texts)

        def forward(self, prepared: Any) -> torch.Tensor:
            return torch.stack([self.view(text) for text in prepared])

        def view(self, text: str) -> torch.Tensor:
            return torch.tensor([sum({"a": 0.1, "b": 0.2, "c": 0.3}.get(c, 0.0) for c in text)])

        def token_view(self, text: str) -> TokenView:
            worth = torch.tensor([0.0, 0.1, 0.2, 0.3])
            ids = tuple("?abc".find(c) if c in "abc" else 0 for c in text)
            spans = tuple((i, i + 1) for i in range(len(text)))
            return TokenView(ids, (0,) * len(ids), spans, lambda i: worth[i][..., None], lambda e: e.sum(1))

    return FittedReward.of(Characters(), SquaredError(-4, 4, 0, 1), {})


def test_what_cannot_be_differentiated_is_one_line(ratings: Any) -> None:
    tfidf = fit_reward_model(ratings, scorer="tfidf").reward
    episode = textgym.Episode("", "dull")
    cases: list[tuple[Any, str]] = [
        (tfidf, "'tfidf' cannot be differentiated"),
        (make_reward("vader"), "textgym reward fit"),
        (make_reward("2*vader - length"), "not the sum"),
        (FittedEnsemble.of([tfidf, tfidf], "min"), "combined by 'min'"),
    ]
    for reward, said in cases:
        with pytest.raises(textgym.InvalidArgumentError, match=said):
            integrated_gradients(reward, episode)


def test_the_command_explains_by_gradients(ratings: Any, tmp_path: Path) -> None:
    fit_reward_model(ratings, tmp_path / "r", scorer="lm-linear", settings=FitSettings(epochs=1))
    arguments = ["reward", "explain", str(tmp_path / "r"), "--method", "integrated-gradients", "--continuation", "A dull plot."]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "checked: below 1% of the range" in result.output
