"""KL divergence between a policy and its reference model: estimators from sampled tokens, and the controller of the penalty."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.errors import InvalidArgumentError

Estimator: TypeAlias = Literal["k1", "k2", "k3"]


def kl_estimate(log_prob: Tensor, reference_log_prob: Tensor, estimator: Estimator = "k3") -> Tensor:
    """Return an estimate of KL(policy ‖ reference) per token, nats, from tokens that the policy chose; same shape as the arguments.

    With r = π_ref / π at the chosen token: k1 = −log r is unbiased and may be negative; k2 = (log r)² / 2 is biased, never negative, and its
    gradient is that of the KL; k3 = r − 1 − log r is unbiased and never negative.

    References:
        Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = reference_log_prob - log_prob
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.expm1(log_ratio) - log_ratio


def never_negative_kls(log_ratios: NDArray[np.floating]) -> dict[str, float]:
    """Return the means of k2 and k3, "kl_k2" and "kl_k3", from log π − log π_ref of tokens, any shape, nats.

    Logged beside k1: k3 is the estimate with the least variance, and 2 · k2 the mean square of what k1 is the mean of.
    """
    log_prob = torch.from_numpy(np.asarray(log_ratios, np.float64))
    return {f"kl_{k}": float(kl_estimate(log_prob, torch.zeros_like(log_prob), k).mean()) for k in ("k2", "k3")}


@dataclass
class KLController:
    """The coefficient of the KL penalty: fixed, or steered towards a target.

    Attributes:
        coef: Current coefficient, reward units per nat; with a target above 0, for it is scaled.
        target: KL per token to steer to, in nats; None keeps `coef` fixed.
        horizon: Tokens over which the coefficient can change by about its own size.

    References:
        Ziegler et al. 2019, arXiv:1909.08593, section 2.2 (their β is our `coef`).
    """

    coef: float
    target: float | None = None
    horizon: int = 10_000

    def __post_init__(self) -> None:
        if self.coef < 0:
            raise InvalidArgumentError(f"kl_coef must be at least 0, got {self.coef}")
        if self.target is not None and not self.target > 0:
            raise InvalidArgumentError(f"kl_target must be greater than 0, got {self.target}")
        if self.target is not None and not self.coef:
            raise InvalidArgumentError(f"kl_target={self.target} scales kl_coef, which is 0 and would stay 0: give a kl_coef above 0")

    def update(self, kl: float, n_tokens: int) -> None:
        """Move the coefficient after a rollout of `n_tokens` with mean KL per token `kl`."""
        if self.target is not None:
            error = float(np.clip(kl / self.target - 1.0, -0.2, 0.2))
            self.coef *= 1.0 + error * n_tokens / self.horizon
