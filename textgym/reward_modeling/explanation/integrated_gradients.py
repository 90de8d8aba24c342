"""Integrated gradients: what each word adds to the score of a model that one can differentiate, checked to add up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.reward_modeling.explanation.explanation import WORD, Explanation
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.rewards.reward import Reward

Array = NDArray[np.float64]
TOLERANCE = 0.01  # of the range of the scores
STEP_BATCH = 32  # points on the path at a time


def integrated_gradients(
    reward: Reward | FittedReward | FittedEnsemble, episode: Episode, n_steps: int = 64, tolerance: float = TOLERANCE
) -> Explanation:
    """Return what each word adds to the score, along the straight line from the embeddings of a text of masks to those of the text.

    Sundararajan, Taly and Yan (2017), "Axiomatic Attribution for Deep Networks", arXiv:1703.01365, by Captum, with Gauss-Legendre points. The
    baseline keeps the number of tokens and the special ones; every other token is the tokenizer's mask, or its padding where it has none. A
    word's part is the sum over its tokens; words beyond the model's longest text get 0. Length debiasing and calibration are passed through.

    Args:
        reward: A fitted model whose scorer is "transformer", or reads a language model's hidden states; or an ensemble of such by mean.
        episode: The text.
        n_steps: Points on the line.
        tolerance: Share of the range of the scores by which the parts may fail to add up to score - baseline.

    Returns:
        The explanation; its `residual` is what completeness lacks, its `baseline` the score of the text of masks.

    Raises:
        InvalidArgumentError: The reward cannot be differentiated by words, the text is empty, or the parts do not add up: take more steps.
    """
    members = _members(reward)
    if n_steps < 2:
        raise InvalidArgumentError(f"n_steps must be at least 2, got {n_steps}")
    prompt, continuation = tuple(WORD.findall(episode.prompt)), tuple(WORD.findall(episode.continuation))
    words = prompt + continuation
    if not words:
        raise InvalidArgumentError("there is no word to explain: the text is empty")
    found = [_of_member(member, episode.text, words, n_steps) for member in members]
    parts = np.mean([f[0] for f in found], axis=0)
    score, baseline = float(np.mean([f[1] for f in found])), float(np.mean([f[2] for f in found]))
    explanation = Explanation(prompt, continuation, parts, score, baseline, np.zeros(len(words)))
    allowed = tolerance * (members[0].high - members[0].low)
    if abs(explanation.residual) > allowed:
        raise InvalidArgumentError(
            f"the parts add up to {parts.sum():.4f}, the score differs from the baseline by {score - baseline:.4f}: more than the tolerance of "
            f"{allowed:.4f} apart; take more than {n_steps} steps"
        )
    return explanation


def _members(reward: Reward | FittedReward | FittedEnsemble) -> Sequence[FittedReward]:
    model: Any = reward
    if isinstance(reward, Reward):
        if len(reward.terms) != 1 or reward.terms[0].weight != 1:
            raise InvalidArgumentError(f"integrated gradients take one fitted model, not the sum {reward.name!r}; shapley takes anything")
        model = reward.terms[0].model
    if isinstance(model, FittedEnsemble):
        if model.how != "mean":
            raise InvalidArgumentError(f"integrated gradients take an ensemble by mean, this one is combined by {model.how!r}; use shapley")
        members = model.members
    elif isinstance(model, FittedReward):
        members = (model,)
    else:
        raise InvalidArgumentError("integrated gradients take a model of `textgym reward fit`; for any other reward use shapley")
    if model.abstention is not None or any(member.guard is not None for member in members):
        raise InvalidArgumentError("integrated gradients cannot pass a guard or an abstention: use shapley")
    return members


def _of_member(model: FittedReward, text: str, words: Sequence[str], n_steps: int) -> tuple[Array, float, float]:
    """Return the parts of the words, (words,), the score and the baseline's score."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise MissingExtraError("integrated gradients", "reward-modeling") from None
    view = model.scorer.token_view(text)

    def score(embeddings: torch.Tensor) -> torch.Tensor:  # (points, L, hidden) -> (points,)
        return model.scores_of(view.outputs(embeddings).cpu(), [text] * len(embeddings))

    with torch.no_grad():
        inputs, masked = (view.embeddings(torch.tensor([ids])).detach() for ids in (view.input_ids, view.baseline_ids))
        ends = [float(score(embeddings)[0]) for embeddings in (inputs, masked)]
    with torch.enable_grad():
        gradients = IntegratedGradients(score).attribute(
            inputs, masked, n_steps=n_steps, method="gausslegendre", internal_batch_size=STEP_BATCH
        )
    by_token = gradients[0].double().sum(-1).cpu().numpy()
    owners = np.repeat(np.arange(len(words)), [len(word) for word in words])  # of each character
    parts = np.zeros(len(words))
    for value, (start, stop) in zip(by_token.tolist(), view.spans, strict=True):
        if stop > start:  # a special token stands for no text, and is the same in the baseline
            parts[owners[stop - 1]] += value
    return parts, ends[0], ends[1]
