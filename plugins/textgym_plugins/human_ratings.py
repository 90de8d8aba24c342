"""The judgements "human-ratings": 17,396 English review sentences and tweets, each rated by 15 people or more."""

from functools import cache
from pathlib import Path
from typing import Any

import textgym
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.reading import read_judgements

RATINGS = Path(__file__).parent / "data" / "human_ratings" / "human_ratings.jsonl.gz"


@cache
def human_ratings() -> JudgementSet[RatedText]:
    """Sentiment of 17,396 review sentences and tweets, -4 to 4, 15 to 99 raters each (Hutto and Gilbert, ICWSM 2014; MIT)."""
    return read_judgements(RATINGS)


@textgym.hookimpl
def register_judgements(register: Any) -> None:
    """Register the set."""
    register("human-ratings", human_ratings)
