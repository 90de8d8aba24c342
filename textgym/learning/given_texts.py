"""Given texts: what was written for a task's prompts before learning began, as if in the environment - the data of offline agents."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from textgym.episode import reference_continuation
from textgym.errors import InvalidArgumentError, UnknownNameError
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, RatedText
from textgym.rewards.reward import make_reward
from textgym.tasks import Prompt

ROWS = 64
REFERENCES, OFFLINE = "references", "offline"
Pair = tuple[GeneratedText, GeneratedText]
"""Chosen and rejected."""


def side_environment(mdp: TokenMDP, split: str | None = None, n_rows: int = ROWS) -> TokenMDP:
    """Return another environment like `mdp`, whose steps nobody wrote: they are not counted among the costs of learning."""
    return TokenMDP(mdp.task, mdp.vocabulary, mdp.reward, n_rows, split or mdp.split, mdp.max_new_tokens, drop_failed=True)


def given_texts(mdp: TokenMDP, data: str | os.PathLike[str] = REFERENCES) -> list[GeneratedText]:
    """Return the texts of a data set, taken through the environment: their tokens, their rewards; log-probabilities are nan.

    The rating of a text is its reward, unless its metadata name another `reward` than that of `mdp`; then, and where there is no rating, it
    is scored, which counts among the costs of learning (`mdp.n_scored`). Texts of other splits than that of `mdp` are left out, and so are those that the reward gave up (nan), and those with a token
    that the task does not allow. Texts longer than the budget are cut there, shorter ones end with EOS; the end token's own text ends a
    text too, so that an empty one can be given. Of several prompts of the task with one text each takes its turn.

    Args:
        mdp: Says the task, the vocabulary and the reward.
        data: "references", those of the task; "offline", what the task ships (`Task.offline`); else a registered set of judgements, or a
            file of ratings or expert texts (docs/judgements.md). Prompts that are not the task's are welcome.

    Raises:
        InvalidArgumentError: There is no such data, a text has no prompt, or nothing is left.
    """
    if os.fspath(data) == REFERENCES:
        return reference_texts(mdp)
    found = _judgements(mdp, data)
    if found.kind not in ("ratings", "texts"):
        raise InvalidArgumentError(f"data={os.fspath(data)!r} holds {found.kind}: this agent learns from ratings or expert texts")
    texts = _texts(mdp, found.items, data)
    if not (kept := [t for t in texts if t is not None]):
        raise InvalidArgumentError(f"data={os.fspath(data)!r}: the task {mdp.task.name!r} allows none of its {len(found)} texts")
    return kept


def given_pairs(mdp: TokenMDP, data: str | os.PathLike[str]) -> list[Pair]:
    """Return the pairs of a data set, taken through the environment.

    Of texts with rewards the best of a prompt is paired with its worst, the second best with the second worst, ..., as long as their rewards
    differ. Ties in a file of preference pairs are left out.

    Args:
        mdp: Says the task, the vocabulary and the reward.
        data: As for `given_texts`, or a file of preference pairs.

    Raises:
        InvalidArgumentError: As `given_texts`, or no pair is left.
    """
    pairs: list[Pair] = []
    found = None if os.fspath(data) == REFERENCES else _judgements(mdp, data)
    if found is not None and found.kind == "pairs":
        decided = [item for item in found.items if not item.tie]
        sides = [ExpertText(id=p.id, prompt=p.prompt, text=text, split=p.split) for p in decided for text in (p.chosen, p.rejected)]
        texts = _texts(mdp, sides, data, scored=False)
        pairs = [(c, r) for c, r in zip(texts[::2], texts[1::2], strict=True) if c is not None and r is not None]
    else:
        groups: dict[str, list[GeneratedText]] = {}
        for text in given_texts(mdp, data):
            groups.setdefault(text.info["prompt"], []).append(text)
        for group in groups.values():
            ranked = sorted(group, key=lambda t: -float(t.rewards.sum()))
            halves = zip(ranked[: len(ranked) // 2], ranked[::-1], strict=False)
            pairs += [(better, worse) for better, worse in halves if better.rewards.sum() > worse.rewards.sum()]
    if not pairs:
        raise InvalidArgumentError(
            f"data={os.fspath(data)!r} has no two texts of one prompt with different rewards: there is nothing to pair"
        )
    return pairs


def reference_texts(mdp: TokenMDP, split: str | None = None) -> list[GeneratedText]:
    """Return every reference of every prompt, taken through the environment, and scored, as `given_texts` are.

    Args:
        mdp: Says the task, the vocabulary and the reward.
        split: Whose prompts; by default that of `mdp`.
    """
    side = side_environment(mdp, split)
    indices, continuations = [], []
    for index, prompt in enumerate(side.prompt_set.prompts):
        for reference in prompt.references:
            indices.append(index)
            continuations.append(reference_continuation(prompt.text, reference))
    if not indices:
        raise InvalidArgumentError(
            f"task {side.task.name!r} has no references in its split {side.split!r}: an agent that learns from given texts needs some"
        )
    found = _replayed(side, indices, continuations)
    mdp.n_scored += side.n_scored
    return [t for t in found if t is not None]


def best_share(texts: Sequence[GeneratedText], share: float) -> list[GeneratedText]:
    """Return the texts with the highest reward, a share (0, 1] of them, in their order; ties with the last one are kept."""
    if not 0 < share <= 1:
        raise InvalidArgumentError(f"the share of texts to keep must be above 0 and at most 1, got {share}")
    totals = np.array([t.rewards.sum() for t in texts])
    least = np.sort(totals)[-max(1, round(share * len(texts)))]
    return [text for text, total in zip(texts, totals, strict=True) if total >= least]


class Rounds:
    """Deals numbers 0 ... n − 1 out in shuffled rounds.

    Args:
        n: How many there are.

    Attributes:
        order: Those still to come in this round, the state that a resumed run needs.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.order: list[int] = []

    def deal(self, wanted: int, rng: np.random.Generator) -> list[int]:
        """Return the next ones, `wanted` or all that there are; what is left of a round and too little is dropped."""
        wanted = min(wanted, self.n)
        if len(self.order) < wanted:
            self.order = rng.permutation(self.n).tolist()
        part, self.order = self.order[:wanted], self.order[wanted:]
        return part


def _judgements(mdp: TokenMDP, data: str | os.PathLike[str]) -> "JudgementSet[Any]":
    """Return the set's judgements of the split of `mdp`, those without a split included."""
    source = os.fspath(data)
    if source == OFFLINE:
        source = mdp.task.offline
        if not source:
            raise InvalidArgumentError(
                f"task {mdp.task.name!r} ships no offline data: pass data='references', a registered set of judgements, or a file of texts"
            )
    try:
        found = load_judgements(source)
    except UnknownNameError as error:
        raise InvalidArgumentError(f"data={source!r} is neither {REFERENCES!r} nor {OFFLINE!r}, and {error}") from None
    kept = tuple(item for item in found.items if item.split in ("", mdp.split))
    if not kept:
        raise InvalidArgumentError(f"data={source!r} has no texts of the split {mdp.split!r}, from which the agent learns")
    return replace(found, items=kept)


def _texts(
    mdp: TokenMDP, items: Sequence[RatedText | ExpertText], data: str | os.PathLike[str], scored: bool = True
) -> list[GeneratedText | None]:
    """Return each text taken through the environment, None where that left it out; without reward if neither rated nor to be `scored`."""
    known: dict[str, list[Prompt]] = {}
    for prompt in mdp.prompt_set.prompts:
        known.setdefault(prompt.text, []).append(prompt)
    turns: dict[str, int] = {}
    prompts = []
    for item in items:
        if not item.prompt:
            raise InvalidArgumentError(
                f"data={os.fspath(data)!r}: the text {item.id!r} has no prompt, but an agent learns how to continue one"
            )
        turn = turns[item.prompt] = turns.get(item.prompt, -1) + 1
        same = known.get(item.prompt) or [Prompt(item.prompt)]
        prompts.append(same[turn % len(same)])
    name = mdp.reward.name
    ratings = [i.rating if isinstance(i, RatedText) and i.metadata.get("reward", name) == name else None for i in items]
    kept: list[GeneratedText | None] = [None] * len(items)
    for is_rated in (True, False):
        part = [k for k, rating in enumerate(ratings) if (rating is not None) == is_rated]
        if not part:
            continue
        task = replace(mdp.task, prompts={"given": [prompts[k] for k in part]}, labels=())
        asked = scored and not is_rated
        reward = mdp.reward if asked else make_reward(_nothing)
        side = TokenMDP(task, mdp.vocabulary, reward, min(ROWS, len(part)), "given", mdp.max_new_tokens, drop_failed=True)
        for k, text in zip(part, _replayed(side, range(len(part)), [items[k].text for k in part], asked), strict=True):
            rating = ratings[k]
            if text is not None and rating is not None:
                text.rewards[-1] = rating
                text.info["reward_terms"] = {name: rating}
            kept[k] = text
        mdp.n_scored += side.n_scored if asked else 0
    return kept


def _replayed(side: TokenMDP, indices: Sequence[int], continuations: Sequence[str], scored: bool = True) -> list[GeneratedText | None]:
    """Return each text as the environment took it; None for one with tokens that it does not allow, or that the reward gave up.

    The reward is asked about the texts that are kept alone: which ones, is found out without it. Not `scored`, that is all there is to do.
    """
    (end,) = side.vocabulary.tokenizer.batch_decode([[min(side.vocabulary.eos_ids)]])
    ends = (end, *side.task.stop)

    def whole(given: str, text: GeneratedText) -> bool:
        taken = text.info["continuation"]
        rest = given[len(taken) :].lstrip()
        return given.startswith(taken) and (text.info["finish_reason"] == "length" or not rest or rest.startswith(ends))

    unscored = TokenMDP(side.task, side.vocabulary, make_reward(_nothing), side.n_rows, side.split, side.max_new_tokens)
    taken = replay(unscored, indices, continuations)
    kept = [i for i, (text, given) in enumerate(zip(taken, continuations, strict=True)) if whole(given, text)]
    texts: list[GeneratedText | None] = [None] * len(continuations)
    if not scored:
        for i in kept:
            texts[i] = taken[i]
        return texts
    for i, text in zip(kept, replay(side, [indices[i] for i in kept], [continuations[i] for i in kept]), strict=True):
        texts[i] = text if np.isfinite(text.rewards).all() else None
    return texts


def _nothing(episodes: Sequence[object]) -> list[float]:
    return [0.0] * len(episodes)
