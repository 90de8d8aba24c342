"""The bundled rewards keep their contract, and "human-rating" agrees with people as well as its documentation says."""

import hashlib
import math
import pickle
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textgym_plugins.human_rating import MODEL, HumanRating
from textgym_plugins.human_ratings import RATINGS
from textgym_plugins.length import Length
from textgym_plugins.repetition import Repetition, repeated_share
from textgym_plugins.vader import Vader

import textgym
from textgym.plugin_manager import installed_plugins
from textgym.reward_modeling.data.judgements import RatedText
from textgym.reward_modeling.data.reading import read_judgements
from textgym.reward_modeling.scorers.text_features import tokens

REWARDS = {"human-rating": HumanRating, "vader": Vader, "length": Length, "repetition": Repetition}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("human-rating", {}),
    ("human-rating", {"part": "continuation"}),
    ("vader", {}),
    ("vader", {"part": "continuation"}),
    ("length", {}),
    ("length", {"target": 12}),
    ("length", {"unit": "characters"}),
    ("length", {"target": 5, "unit": "words"}),
    ("repetition", {}),
]
BATTERY = [
    ("", ""),
    ("The movie", ""),
    ("", "a"),
    ("The movie", " was a delight."),
    ("The movie", " was not a delight."),
    ("😀", "😡👩‍👩‍👧 <3 :-)"),
    ("مرحبا", " بالعالم"),
    ("שלום", " עולם"),
    ("電影", "很好看。"),
    ("\x00\x01\x1b[0m", "\t\r\n\x7f\u200b\ufeff"),
    ("\ud800", " lone surrogate"),
    ("", " great" * 3333),
    ("", "a" * 20_000),
    ("", "!?~<>'\"" * 2857),
    ("~", "~~ not ~ ~good `twas İSTANBUL K"),
]


def episode(prompt: str, continuation: str) -> textgym.Episode:
    return textgym.Episode(prompt=prompt, continuation=continuation, continuation_ids=tuple(range(len(continuation.split()))))


def scores(reward: Any, episodes: list[textgym.Episode]) -> list[float]:
    return [float(score) for score in reward.score(episodes)]


EPISODES = [episode(*pair) for pair in BATTERY]


@pytest.fixture(scope="module")
def table() -> Sequence[RatedText]:
    return read_judgements(RATINGS).items


@pytest.fixture(scope="module")
def human_rating() -> HumanRating:
    return HumanRating()


@pytest.mark.parametrize(("name", "options"), SETTINGS)
class TestContract:
    def test_is_registered_and_within_its_range(self, name: str, options: dict[str, Any]) -> None:
        reward = REWARDS[name](**options)
        found = scores(textgym.make_reward(name, **options), EPISODES)
        assert found == scores(reward, EPISODES)
        assert all(math.isfinite(score) and reward.low <= score <= reward.high for score in found)

    def test_batch_equals_singles_in_any_order(self, name: str, options: dict[str, Any]) -> None:
        reward = REWARDS[name](**options)
        batch = scores(reward, EPISODES)
        assert batch == [scores(reward, [one])[0] for one in EPISODES]
        assert batch[::-1] == scores(reward, EPISODES[::-1])
        assert batch * 4 == scores(reward, EPISODES * 4)
        assert scores(reward, []) == []

    def test_can_be_sent_to_another_process(self, name: str, options: dict[str, Any]) -> None:
        reward = REWARDS[name](**options)
        assert scores(pickle.loads(pickle.dumps(reward)), EPISODES) == scores(reward, EPISODES)

    def test_says_what_it_is(self, name: str, options: dict[str, Any]) -> None:
        reward = REWARDS[name](**options)
        assert "Source" in (reward.__doc__ or "")
        assert reward.deterministic
        assert reward.version
        assert reward.license


@cache
def built(name: str) -> Any:
    return REWARDS[name]()  # one for all examples


@given(prompt=st.text(max_size=60), continuation=st.text(max_size=200))
@pytest.mark.parametrize("name", REWARDS)
def test_free_text_scores_within_range(name: str, prompt: str, continuation: str) -> None:
    reward = built(name)
    first, second, third = scores(reward, [episode(prompt, continuation), episode("x", "y z"), episode(prompt, continuation)])
    assert reward.low <= first <= reward.high
    assert first == third
    assert [second] == scores(reward, [episode("x", "y z")])


@pytest.mark.parametrize(
    ("name", "options"),
    [("human-rating", {"part": "prompt"}), ("vader", {"part": ""}), ("length", {"unit": "lines"}), ("length", {"target": -1})],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=f"^{name}: {next(iter(options))} must be"):
        REWARDS[name](**options)


# --- human-rating --------------------------------------------------------------------------------------------------------------------


def test_human_rating_agrees_with_people(table: Sequence[RatedText], human_rating: HumanRating) -> None:
    rows = [row for row in table if row.split == "test"]
    predicted = np.array([human_rating.rate(row.text) for row in rows])
    ratings = np.array([row.rating for row in rows])
    assert np.corrcoef(predicted, ratings)[0, 1] >= 0.79
    assert np.mean((predicted - ratings) ** 2) <= 1.2
    assert np.polyfit(predicted, ratings, 1)[0] == pytest.approx(1, abs=0.1)  # calibrated: as far from the middle as people are


def test_human_rating_is_a_fitted_reward_model_as_anyones(table: Sequence[RatedText], human_rating: HumanRating) -> None:
    texts = [row.text for row in table if row.split == "test"][::20]
    by_path = textgym.make_reward(str(MODEL)).score([episode("", text) for text in texts])
    assert scores(human_rating, [episode("", text) for text in texts]) == [float(score) for score in by_path]
    assert human_rating.model.description["scorer"] == "compact"


def test_human_rating_was_fitted_on_the_training_split_alone(table: Sequence[RatedText], human_rating: HumanRating) -> None:
    training = [row for row in table if row.split == "train"]
    identity = hashlib.sha256("\n".join(sorted(row.id for row in training)).encode()).hexdigest()
    assert human_rating.model.description["judgements"]["train_ids_sha256"] == identity
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 12_000_000


def test_human_rating_knows_negation_and_is_not_moved_by_repetition(human_rating: HumanRating) -> None:
    assert human_rating.rate("This is a good movie.") > 1 > -0.5 > human_rating.rate("This is not a good movie.")
    assert human_rating.rate("great") == human_rating.rate("great " * 1000)
    assert abs(human_rating.rate("")) < 0.2
    assert human_rating.rate("مرحبا") == pytest.approx(human_rating.rate(""), abs=0.01)
    assert human_rating.rate("best great great love") < human_rating.rate("great") + 0.2  # piled-up praise hardly pays


@pytest.mark.parametrize("name", ["human-rating", "vader"])
def test_part_chooses_what_is_rated(name: str) -> None:
    mixed = episode("A terrible, awful plot", " with great, wonderful actors")
    whole, end = REWARDS[name](), REWARDS[name](part="continuation")
    assert scores(whole, [mixed]) == scores(whole, [episode(mixed.text, "")])
    assert scores(end, [mixed]) == scores(end, [episode("", mixed.continuation)])
    assert scores(end, [mixed]) > scores(whole, [mixed])


def test_negation_reaches_four_words_or_the_end_of_the_clause() -> None:
    assert tokens("I don’t like this one very much") == ["i", "don't", "~like", "~this", "~one", "~very", "much"]
    assert tokens("Not bad, good :-) soooo") == ["not", "~bad", ",", "good", ":-)", "soo"]


# --- the others ----------------------------------------------------------------------------------------------------------------------


def test_vader_is_four_times_the_compound_score() -> None:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    text = "VADER is smart, handsome, and funny!"
    assert scores(Vader(), [episode(text, "")]) == [4 * SentimentIntensityAnalyzer().polarity_scores(text)["compound"]]


def test_length_counts_the_continuation_in_its_unit() -> None:
    one = textgym.Episode(prompt="The movie", continuation=" was  fun.", prompt_ids=(1, 2), continuation_ids=(5, 6, 0))
    assert [scores(Length(unit=unit), [one]) for unit in ("tokens", "characters", "words")] == [[3.0], [10.0], [2.0]]
    assert [scores(Length(target=target), [one]) for target in (0, 3, 10)] == [[-3.0], [0.0], [-7.0]]


def test_repetition_follows_its_formula() -> None:
    words = ["the", "cat", "saw", "the", "cat"]
    assert [repeated_share(words, n) for n in (1, 2, 3, 4)] == [pytest.approx(2 / 5), pytest.approx(1 / 4), 0, 0]
    found = scores(Repetition(), [episode("ignored " * 9, text) for text in ("The cat saw the cat", "a b c d e", " ", "", "no " * 500)])
    assert found[:4] == [pytest.approx(1 - 3 / 5 * 3 / 4), 0, 1, 1]
    assert 1 > found[4] > 0.999


def test_the_page_of_rewards_names_every_one() -> None:
    page = (Path(__file__).parents[2] / "docs/rewards.md").read_text()
    bundled = [name for name, found in installed_plugins().registrations("reward").items() if found.provenance.distribution == "textgym"]
    assert len(bundled) > 30
    assert [name for name in bundled if f"`{name}`" not in page] == []
