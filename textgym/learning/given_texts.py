"""Given texts: what people wrote for a task's prompts, as if it had been written in the environment - the data of offline agents."""

from collections.abc import Sequence

import numpy as np

from textgym.episode import reference_continuation
from textgym.errors import InvalidArgumentError
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay

ROWS = 64


def side_environment(mdp: TokenMDP, split: str | None = None, n_rows: int = ROWS) -> TokenMDP:
    """Return another environment like `mdp`, whose steps and scores are not counted among the costs of learning."""
    return TokenMDP(mdp.task, mdp.vocabulary, mdp.reward, n_rows, split or mdp.split, mdp.max_new_tokens, drop_failed=True)


def reference_texts(mdp: TokenMDP, split: str | None = None) -> list[GeneratedText]:
    """Return every reference of every prompt, taken through the environment: its tokens, its reward; log-probabilities are nan.

    Texts that the reward gave up (nan), and those with a token that the task does not allow, are left out. References longer than the budget are cut there, shorter ones end with EOS.

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
    texts = zip(replay(side, indices, continuations), continuations, strict=True)
    return [t for t, given in texts if given.startswith(t.info["continuation"]) and np.isfinite(t.rewards).all()]


def best_share(texts: Sequence[GeneratedText], share: float) -> list[GeneratedText]:
    """Return the texts with the highest reward, a share (0, 1] of them, in their order; ties with the last one are kept."""
    if not 0 < share <= 1:
        raise InvalidArgumentError(f"the share of texts to keep must be above 0 and at most 1, got {share}")
    totals = np.array([t.rewards.sum() for t in texts])
    least = np.sort(totals)[-max(1, round(share * len(texts)))]
    return [text for text, total in zip(texts, totals, strict=True) if total >= least]
