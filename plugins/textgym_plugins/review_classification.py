"""The task "ReviewClassification-v0" with its reward "right-label": say whether people find a review sentence poor or excellent."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import textgym
from textgym_plugins.human_ratings import human_ratings
from textgym_plugins.reference_texts import reference_continuations

LABELS = ("poor", "excellent")  # Turney's two reference words
QUESTION = " Is it poor or excellent? It is really"  # after "really" the bundled model leans to neither: a gap of −0.2 nats, 1.5 without it
LONGEST = 60  # words of a sentence that are kept: 17 of the 13,448 have more


class RightLabel:
    """1 if the continuation is the right label, the first reference; −1 for anything else.

    Spaces around the label do not count. Needs a task whose first reference is the right label.
    """

    low, high = -1.0, 1.0
    deterministic = True
    needs_references = True
    version = "1"
    license = "Apache-2.0"

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return 1.0 or −1.0 per episode, (n,)."""
        right = [reference_continuations(e, "right-label")[0].strip() for e in episodes]
        return [1.0 if e.continuation.strip() == label else -1.0 for e, label in zip(episodes, right, strict=True)]


@cache
def _questions(least: float) -> dict[str, list[textgym.Prompt]]:
    """Return a question about every movie and product sentence that people rated at least `least` away from 0, by split."""
    prompts: dict[str, list[textgym.Prompt]] = {"train": [], "validation": [], "test": []}
    seen = set()
    for item in human_ratings().items:
        sentence = " ".join(item.text.split()[:LONGEST])
        if item.source == "tweet" or abs(item.rating) < least or sentence in seen:
            continue
        seen.add(sentence)
        label = f" {LABELS[item.rating > 0]}"
        metadata = {"id": item.id, "source": item.source, "rating": item.rating, "sentence": sentence}
        prompts[item.split].append(textgym.Prompt(sentence + QUESTION, (label,), metadata))
    return prompts


def review_classification(least_rating: float = 0.5) -> textgym.Task:
    """Say in one word whether people find a review sentence poor or excellent.

    ## Description
    The prompt is a sentence of a movie or product review and a question; the answer is one of two tokens. A task with a known right answer,
    one decision long: the ground on which value-based agents, policy gradients and supervised learning can be compared.

    ## Action Space
    `Discrete(V)` of the language model in use ("reviews" by default), of which only " poor" and " excellent" may be chosen; EOS may not.

    ## Observation Space
    `input_ids` and `attention_mask`, int64 (L,), right-padded.

    ## Starting State
    A sentence of the split in use, cut after 60 words, with " Is it poor or excellent? It is really". Sentences whose mean rating is less than
    `least_rating` from 0 are left out. By default 9,772 train, 1,220 validate and 1,272 test, about half of them good (train 52.2 %,
    validation 49.5 %, test 49.1 %); the splits are those of the ratings, and no sentence stands in two.

    ## Reward
    "right-label": 1 for the label that is the sign of the mean human rating, −1 for the other one.

    ## Episode End
    After one token.

    ## Information
    `prompt`, `continuation`, `finish_reason`, `reward_terms`, and `label`, the right one, after the last step.

    ## Arguments
    `least_rating`: least distance of the mean rating (−4 to 4) from 0 (0.5).

    ## References
    Hutto and Gilbert, "VADER", ICWSM 2014 (the rated sentences). Turney, "Thumbs up or thumbs down?", ACL 2002, cs/0212032 (the two words).

    ## Version History
    v0: initial version.
    """
    if not 0 < least_rating < 4:
        raise textgym.InvalidArgumentError(f"least_rating must be above 0 and below 4, got {least_rating}")
    return textgym.Task(
        "ReviewClassification-v0",
        _questions(least_rating),
        "reviews",
        1,
        "right-label",
        allowed_tokens=tuple(f" {label}" for label in LABELS),
        perfect_score=1.0,
        may_end=False,
        labels=LABELS,
        offline="review-classification-offline",
    )


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("right-label", RightLabel)


@textgym.hookimpl
def register_tasks(register: Any) -> None:
    """Register the task."""
    register("ReviewClassification-v0", review_classification)
