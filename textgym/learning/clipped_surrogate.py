"""Clipped surrogate: the loss of PPO's kind, for single tokens or whole texts."""

from torch import Tensor


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return −min(r Â, clip(r, 1 − low, 1 + high) Â) and where the clip stops the gradient (bool), both of the arguments' shape.

    Args:
        log_ratio: log r = log π(a) − log π_old(a), nats; of tokens, or summed over texts.
        advantage: Â, of the same shape.
        low, high: How far the ratio may move from 1 either way.

    References:
        Schulman et al. 2017, arXiv:1707.06347, equation 7; a wider upper side: Yu et al. 2025, arXiv:2503.14476 (DAPO, "clip-higher").
    """
    ratio = log_ratio.exp()
    free, held = ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage
    return -free.minimum(held), held < free
