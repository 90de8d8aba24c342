"""The judgements "human-ratings": 17,396 English review sentences and tweets, each rated by 15 people or more."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import textgym
from textgym.reward_modeling.judgements import JudgementSet, RatedText

TABLE = Path(__file__).parent / "data" / "human_ratings" / "human_ratings.tsv.gz"


def human_ratings() -> JudgementSet[RatedText]:
    """Sentiment of 17,396 review sentences and tweets, -4 to 4, 15 to 99 raters each (Hutto and Gilbert, ICWSM 2014; MIT)."""
    table = io.StringIO(gzip.decompress(TABLE.read_bytes()).decode())
    items = []
    for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
        single = tuple(float(rating) for rating in json.loads(row["ratings"] or "[]"))
        # a mean of its own, rounded as published, stays: 186 tweets have no single ratings at all
        items.append(
            RatedText(id=row["id"], text=row["text"], rating=float(row["mean"]), ratings=single, source=row["source"], split=row["split"])  # type: ignore[arg-type]
        )
    return JudgementSet("ratings", tuple(items), low=-4.0, high=4.0)


@textgym.hookimpl
def register_judgements(register: Any) -> None:
    """Register the set."""
    register("human-ratings", human_ratings)
