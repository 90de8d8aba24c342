"""Negative log-likelihood: the loss of every agent that imitates texts."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.learning.micro_batches import micro_batches
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.generation import GeneratedText


def negative_log_likelihood(
    policy: CausalLMPolicy, texts: Sequence[GeneratedText], batch_size: int, wanted: Sequence[NDArray[np.int64]] | None = None
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Yield the parts of −log π of every token, a mean over tokens.

    Args:
        policy: What learns.
        texts: Whose prefixes.
        batch_size: Tokens per pass.
        wanted: Per text (tokens of it,), which token is imitated after each prefix; by default that of the text.
    """
    n_tokens = sum(len(t.action_ids) for t in texts)
    for batch in micro_batches(texts, batch_size, policy.device):
        tokens = batch.packed.actions
        if wanted is not None:
            tokens = torch.from_numpy(np.concatenate([wanted[i] for i in batch.indices])).to(policy.device)
        _, log_prob, entropy = policy.evaluate_actions(batch.packed, tokens)
        loss = -log_prob.sum() / n_tokens
        yield loss, {"loss": loss.item(), "entropy_loss": -entropy.sum().item() / n_tokens}
