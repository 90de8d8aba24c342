"""Export: a collection's judgements as the project's judgement data."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from textgym.rating.collection import Item
from textgym.rating.store import Judgement, JudgementStore
from textgym.reward_modeling.data.judgements import JudgementSet, Kind, PreferencePair, RatedText
from textgym.reward_modeling.data.schema import content_id


def judgement_set(store: JudgementStore) -> JudgementSet[RatedText] | JudgementSet[PreferencePair]:
    """Return what raters said: a rated text per item with everybody's rating, or a preference pair per item and rater."""
    by_item: dict[str, list[Judgement]] = {}
    for judgement in store.judgements():
        by_item.setdefault(judgement.item, []).append(judgement)
    kind: Kind = "ratings" if store.collection.mode == "ratings" else "pairs"
    judged = [
        (item, name, by_item[item.id]) for item, name in zip(store.items, _names(store.items, kind), strict=True) if item.id in by_item
    ]
    if kind == "ratings":
        rated = tuple(_rated_text(item, name, judgements) for item, name, judgements in judged)
        return JudgementSet("ratings", rated, low=float(store.collection.low), high=float(store.collection.high))
    margins = store.collection.levels > 1
    return JudgementSet("pairs", tuple(_preference_pair(item, name, j, margins) for item, name, judgements in judged for j in judgements))


def _names(items: Sequence[Item], kind: Kind) -> list[str]:
    """Return a name for each item, made of its texts, so that the exports of several collections can be joined."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        texts = dict(zip(("text",) if kind == "ratings" else ("chosen", "rejected"), item.texts, strict=True))
        name = content_id({"prompt": item.prompt, **texts}, kind)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _rated_text(item: Item, name: str, judgements: list[Judgement]) -> RatedText:
    ratings = tuple(float(j.value) for j in judgements)
    return RatedText(
        id=name,
        prompt=item.prompt,
        text=item.texts[0],
        rating=sum(ratings) / len(ratings),
        ratings=ratings,
        raters=tuple(j.rater for j in judgements),
        source=item.sources[0],
        group=_group(item, name),
        metadata={"item": item.id, "times": [j.time for j in judgements], "seconds": [j.seconds for j in judgements]},
    )


def _preference_pair(item: Item, name: str, judgement: Judgement, margins: bool) -> PreferencePair:
    chosen = 0 if judgement.value >= 0 else 1
    return PreferencePair(
        id=f"{name}/{judgement.rater}",
        prompt=item.prompt,
        chosen=item.texts[chosen],
        rejected=item.texts[1 - chosen],
        margin=float(abs(judgement.value)) if margins else None,
        tie=judgement.value == 0,
        rater=judgement.rater,
        source=" | ".join(dict.fromkeys(item.sources)),
        group=_group(item, name),
        metadata={
            "item": item.id,
            "chosen_source": item.sources[chosen],
            "rejected_source": item.sources[1 - chosen],
            "chosen_side": "left" if judgement.swapped == bool(chosen) else "right",
            "time": judgement.time,
            "seconds": judgement.seconds,
        },
    )


def _group(item: Item, name: str) -> str:
    """Return what must stay in one split: all judgements of one prompt, or of one item where there is no prompt."""
    return f"prompt-{hashlib.sha256(item.prompt.encode()).hexdigest()[:12]}" if item.prompt else f"item-{name}"
