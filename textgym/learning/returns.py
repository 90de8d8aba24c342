"""Returns and advantages: from the rewards of single tokens to what each token, or each text, was worth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def returns_to_go(rewards: Floats, gamma: float = 1.0) -> Floats:
    """Return G_t = Σ_k γ^k r_{t+k} for every token of one text, (T,)."""
    if gamma == 1.0:
        return np.cumsum(rewards[::-1])[::-1]
    returns = np.zeros(len(rewards))
    running = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + gamma * running
        returns[t] = running
    return returns


def generalized_advantages(rewards: Floats, values: Floats, gamma: float, gae_lambda: float) -> Floats:
    """Return the advantage of every token of one whole text, (T,): Â_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V_{t+1} − V_t, 0 after the end.

    Rollouts cut by a step budget are stable-baselines3's business (`EpisodeRolloutBuffer`); here texts are whole.

    References:
        Schulman et al. 2016, arXiv:1506.02438.
    """
    delta = rewards + gamma * np.append(values[1:], 0.0) - values
    return returns_to_go(delta, gamma * gae_lambda)


def leave_one_out(scores: Floats, group_size: int) -> Floats:
    """Return for each text the mean score of the other texts of its group, (n,); nan scores are left out, nan where no other is left.

    Args:
        scores: (n,) of texts whose groups, of `group_size` each, lie one after the other.
        group_size: Texts per prompt.

    References:
        Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740 (RLOO).
    """
    groups = scores.reshape(-1, group_size)
    others = np.isfinite(groups).sum(1, keepdims=True) - np.isfinite(groups)
    total = np.nansum(groups, 1, keepdims=True) - np.nan_to_num(groups)
    return np.asarray((total / np.where(others > 0, others, np.nan)).reshape(-1), np.float64)


def group_relative(scores: Floats, group_size: int, scale: bool = True, epsilon: float = 1e-4) -> Floats:
    """Return each score less its group's mean, over the group's standard deviation if `scale`, (n,); nan scores stay nan.

    The deviation is the sample's (n − 1), as in Shao et al.'s and TRL's implementations; a group of equal scores gives zeros.

    References:
        Shao et al. 2024, arXiv:2402.03300 (GRPO); without the scale: Liu et al. 2025, arXiv:2503.20783 (Dr. GRPO).
    """
    groups = scores.reshape(-1, group_size)
    known = np.isfinite(groups)
    counts = known.sum(1, keepdims=True)
    mean = np.nansum(groups, 1, keepdims=True) / np.maximum(counts, 1)
    gaps = groups - mean
    if scale:
        deviation = np.sqrt(np.nansum(gaps**2, 1, keepdims=True) / np.maximum(counts - 1, 1))
        gaps = gaps / (deviation + epsilon)
    return np.asarray(gaps.reshape(-1), np.float64)


def whitened(advantages: Sequence[Floats], shift: bool = True) -> list[Floats]:
    """Return per-text arrays divided by their standard deviation over all tokens, and centred if `shift`."""
    everything = np.concatenate(advantages) if advantages else np.zeros(0)
    mean = float(everything.mean()) if shift and everything.size else 0.0
    scale = 1.0 / (float(everything.std()) + 1e-8) if everything.size else 1.0
    return [(a - mean) * scale for a in advantages]
