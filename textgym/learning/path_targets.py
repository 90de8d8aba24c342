"""Path targets: what the Q of every token of a text is regressed on, one step ahead to the whole text."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from textgym.learning.micro_batches import MicroBatch, split_by_text
from textgym.learning.returns import Floats, generalized_advantages
from textgym.policies.generation import GeneratedText


def path_targets(rewards: Floats, values: Floats, advantages: Floats, gamma: float, lam: float) -> Floats:
    """Return the target of Q(s_t, a_t) for every token of one whole text, (T,).

    y_t = Q_t + Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V_{t+1} − Q_t, Q_t = V_t + A_t, with V = 0 after the end. λ = 0 is the one-step target
    r_t + γ V_{t+1}; λ = 1 sums the rewards to the end. As δ compares with the values of the same state, not with those of whoever chose the
    token, its fixed point is the true Q for any λ and for texts of any origin.

    Args:
        rewards: (T,) of the text.
        values: (T,) V of the target network before each token.
        advantages: (T,) its A of each chosen token: α log π of a soft Q, at most 0 of a hard one.
        gamma, lam: γ and λ.

    References:
        Nachum et al. 2017, arXiv:1702.08892 (path consistency); Harutyunyan et al. 2016, arXiv:1602.04951 (Q(λ) with off-policy corrections).
    """
    return values + advantages + generalized_advantages(rewards - advantages, values, gamma, lam)


def batch_targets(
    batch: MicroBatch, texts: Sequence[GeneratedText], values: Tensor, advantages: Tensor, gamma: float, lam: float
) -> Tensor:
    """Return the targets of the chosen tokens' Q, (T,) float32 on the batch's device.

    Args:
        batch: Of some of the texts.
        texts: All texts, with their rewards.
        values, advantages: V and A of the target network, (T,) each.
        gamma, lam: As for `path_targets`.
    """
    chosen = [texts[i] for i in batch.indices]
    parts = [split_by_text(numbers.double().cpu().numpy(), chosen) for numbers in (values, advantages)]
    found = [path_targets(t.rewards, v, a, gamma, lam) for t, v, a in zip(chosen, *parts, strict=True)]
    return torch.from_numpy(np.concatenate(found).astype(np.float32)).to(values.device)
