"""Export: a collection's judgements as the project's judgement data."""

import hashlib

from textgym.rating.collection import Item
from textgym.rating.store import Judgement, JudgementStore
from textgym.reward_modeling.data.judgements import JudgementSet, PreferencePair, RatedText


def judgement_set(store: JudgementStore) -> JudgementSet[RatedText] | JudgementSet[PreferencePair]:
    """Return what raters said: a rated text per item with everybody's rating, or a preference pair per item and rater."""
    by_item: dict[str, list[Judgement]] = {}
    for judgement in store.judgements():
        by_item.setdefault(judgement.item, []).append(judgement)
    judged = [(item, by_item[item.id]) for item in store.items if item.id in by_item]
    if store.collection.mode == "ratings":
        rated = tuple(_rated_text(item, judgements) for item, judgements in judged)
        return JudgementSet("ratings", rated, low=float(store.collection.low), high=float(store.collection.high))
    margins = store.collection.levels > 1
    return JudgementSet("pairs", tuple(_preference_pair(item, j, margins) for item, judgements in judged for j in judgements))


def _rated_text(item: Item, judgements: list[Judgement]) -> RatedText:
    ratings = tuple(float(j.value) for j in judgements)
    return RatedText(
        id=item.id,
        prompt=item.prompt,
        text=item.texts[0],
        rating=sum(ratings) / len(ratings),
        ratings=ratings,
        raters=tuple(j.rater for j in judgements),
        source=item.sources[0],
        group=_group(item),
        metadata={"times": [j.time for j in judgements], "seconds": [j.seconds for j in judgements]},
    )


def _preference_pair(item: Item, judgement: Judgement, margins: bool) -> PreferencePair:
    chosen = 0 if judgement.value >= 0 else 1
    return PreferencePair(
        id=f"{item.id}/{judgement.rater}",
        prompt=item.prompt,
        chosen=item.texts[chosen],
        rejected=item.texts[1 - chosen],
        margin=float(abs(judgement.value)) if margins else None,
        tie=judgement.value == 0,
        rater=judgement.rater,
        source=" | ".join(dict.fromkeys(item.sources)),
        group=_group(item),
        metadata={
            "item": item.id,
            "chosen_source": item.sources[chosen],
            "rejected_source": item.sources[1 - chosen],
            "chosen_side": "left" if judgement.swapped == bool(chosen) else "right",
            "time": judgement.time,
            "seconds": judgement.seconds,
        },
    )


def _group(item: Item) -> str:
    """Return what must stay in one split: all judgements of one prompt, or of one item where there is no prompt."""
    return f"prompt-{hashlib.sha256(item.prompt.encode()).hexdigest()[:12]}" if item.prompt else f"item-{item.id}"
