"""The task "ReviewContinuation-v0": go on with a review of which the first words are given."""

from functools import cache
from typing import Any

import textgym
from textgym_plugins.human_ratings import human_ratings


@cache
def _review_prompts(n_words: int) -> dict[str, list[textgym.Prompt]]:
    """Return the first words of every movie and product sentence that has more of them, by split."""
    prompts: dict[str, list[textgym.Prompt]] = {"train": [], "validation": [], "test": []}
    seen = set()
    for item in human_ratings().items:
        words = item.text.split(" ")
        start = " ".join(words[:n_words])
        if item.source == "tweet" or len(words) < n_words + 3 or (item.split, start) in seen or not start[:1].isalnum():
            continue
        seen.add((item.split, start))
        metadata = {"id": item.id, "source": item.source, "rating": item.rating}
        prompts[item.split].append(textgym.Prompt(start, (item.text,), metadata))
    for split, texts in prompts.items():
        if split != "train":  # a prompt is held out only if no training review begins with it
            prompts[split] = [p for p in texts if ("train", p.text) not in seen]
    return prompts


def review_continuation(n_words: int = 3) -> textgym.Task:
    """Continue a movie or product review from its first words.

    ## Description
    The prompt is the beginning of a real review sentence; the agent writes on. Any reward will do; by default it is the rating, −4 to 4,
    that people would give the text.

    ## Action Space
    `Discrete(V)`: the next token of the language model in use ("reviews" by default).

    ## Observation Space
    `input_ids` and `attention_mask`, int64 (L,), right-padded.

    ## Starting State
    The first `n_words` words of a movie or product sentence of the split in use. No held-out prompt begins a training sentence.

    ## Reward
    "human-rating" of prompt and continuation at the end, −4 to 4; "vader" is the independent score.

    ## Episode End
    End-of-text token, or `max_new_tokens` (24) chosen.

    ## Information
    `prompt`, `continuation`, `finish_reason`, `reward_terms` after the last step.

    ## Arguments
    `n_words`: words in a prompt (3).

    ## References
    Hutto and Gilbert, "VADER", ICWSM 2014 (the rated sentences).

    ## Version History
    v0: initial version.
    """
    if n_words < 1:
        raise textgym.InvalidArgumentError(f"n_words must be at least 1, got {n_words}")
    return textgym.Task(
        "ReviewContinuation-v0",
        _review_prompts(n_words),
        "reviews",
        24,
        "human-rating",
        "vader",
        offline="review-continuation-offline",
    )


@textgym.hookimpl
def register_tasks(register: Any) -> None:
    """Register the task."""
    register("ReviewContinuation-v0", review_continuation)
