"""The token distribution: from logits to probabilities, the same rule for sampling, log-probabilities, entropy and the reference model."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from textgym.errors import InvalidArgumentError

FORBIDDEN = -1e9  # finite, so that 0 * log 0 is 0 and gradients stay finite


@dataclass(frozen=True)
class SamplingRule:
    """How logits become probabilities.

    Attributes:
        temperature: Logits are divided by it.
        top_k: Only the k most probable tokens keep probability; 0 keeps all.
    """

    temperature: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InvalidArgumentError(
                f"temperature must be greater than 0, got {self.temperature} (for the best token use deterministic=True)"
            )
        if self.top_k < 0:
            raise InvalidArgumentError(f"top_k must be 0 (off) or a positive integer, got {self.top_k}")

    def apply(self, logits: Tensor, allowed: Tensor | None, chosen: Tensor | None = None) -> Tensor:
        """Return the logits of the distribution that tokens are drawn from, float32.

        Args:
            logits: (batch, vocab), any float dtype.
            allowed: (vocab,) or (batch, vocab) bool, True = may be chosen; None for all.
            chosen: (batch,) tokens that were drawn. They stay in the top-k set even if the weights have moved since, so that their ratio
                stays finite; at the first pass they are in it anyway.
        """
        logits = logits.float()
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if allowed is not None:
            logits = logits.masked_fill(~allowed, FORBIDDEN)
        if 0 < self.top_k < logits.shape[-1]:
            keep = logits >= logits.topk(self.top_k, dim=-1).values[..., -1:]
            if chosen is not None:
                keep = keep.scatter(-1, chosen[:, None], True)
            logits = logits.masked_fill(~keep, FORBIDDEN)
        return logits

    def log_probs_if_chosen(self, logits: Tensor, allowed: Tensor | None) -> Tensor:
        """Return for every token the log-probability that it has if it is the one that was `chosen`, (batch, vocab) float32, natural log.

        Without top k that is the distribution's. With it, a token outside of the k most probable has what `apply` would give it beside them: so
        the KL from a model whose k tokens are others is finite, and the same from samples as from the sum over all tokens.

        Args:
            logits, allowed: As for `apply`.
        """
        everywhere = replace(self, top_k=0).apply(logits, allowed)
        if not 0 < self.top_k < logits.shape[-1]:
            return everywhere.log_softmax(-1)
        kept = self.apply(logits, allowed)
        total = kept.logsumexp(-1, keepdim=True)
        return everywhere - torch.where(kept > FORBIDDEN, total, torch.logaddexp(total, everywhere))


def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token per row by inverting the cumulative distribution.

    One uniform number a row, rather than one a token, so that equal numbers give equal texts whatever the batch.

    Args:
        logits: (batch, vocab) float32 from `SamplingRule.apply`.
        uniform: (batch,) in [0, 1).

    Returns:
        (batch,) int64.
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    threshold = uniform.clamp(max=1 - 1e-6)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


class _LogProbAndEntropy(torch.autograd.Function):
    """log p(action) and entropy of categorical distributions with one softmax forward and a closed-form gradient backward.

    d log p(a) / d logits = onehot(a) - p;  d H / d logits = -p (log p + H). Autograd would keep four (batch, vocab) tensors; this keeps one,
    and leaves the entropy's part out when nobody asks for its gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = logits.log_softmax(-1)
        probs = log_probs.exp()
        chosen = log_probs.gather(-1, actions[:, None]).squeeze(-1)
        entropy = -log_probs.mul_(probs).sum(-1)  # einsum would be a batched matmul of single rows, four times as slow on a CPU
        ctx.save_for_backward(probs, actions, entropy)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad_log_prob, grad_entropy = grads
        probs, actions, entropy = ctx.saved_tensors
        grad = probs * -grad_log_prob[:, None]
        grad.scatter_add_(-1, actions[:, None], grad_log_prob[:, None])
        if grad_entropy.any():
            log_probs = probs.clamp_min(1e-38).log()
            grad -= grad_entropy[:, None] * probs * (log_probs + entropy[:, None])
        return grad, None


def log_prob_and_entropy(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the natural log-probability of each action and the entropy in nats, (batch,) float32 each, of (batch, vocab) logits."""
    log_prob, entropy = _LogProbAndEntropy.apply(logits, actions)  # type: ignore[no-untyped-call]
    return log_prob, entropy
