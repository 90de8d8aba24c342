"""First pass: whether an update starts from the log-probabilities that the texts were written with."""

from collections.abc import Iterable

import torch
from torch import Tensor

from textgym.lm.packing import PackedBatch
from textgym.policies.causal_lm_policy import CausalLMPolicy

N_TOKENS = 64  # looked at in each iteration: 1 to 3 per cent of the time of a default iteration
N_READ = 192  # prompts included, for where they are much longer than what is written: a label after a sentence


def n_looked_at(sizes: Iterable[tuple[int, int]]) -> int:
    """Return how many of the texts are looked at, at least one.

    Args:
        sizes: (tokens of the prompt, tokens written) of each text.
    """
    n_texts = n_tokens = n_read = 0
    for read, written in sizes:
        if n_tokens >= N_TOKENS or n_read >= N_READ:
            break
        n_texts, n_tokens, n_read = n_texts + 1, n_tokens + written, n_read + read + written
    return n_texts


@torch.no_grad()
def sampling_difference(policy: CausalLMPolicy, packed: PackedBatch, written: Tensor) -> dict[str, float]:
    """Return how the policy, as it is in an update, finds tokens that it has just written; it is left in evaluation mode.

    Before the first gradient the ratio π_update / π_sampling must be 1 for every token. Where it is not, dropout, the sampling rule, the mask of
    allowed tokens or rounding differ between the two, and every policy gradient is off by it.

    Args:
        policy: What learns.
        packed: Texts, or parts of texts, with T tokens.
        written: (T,) log-probabilities of the tokens when they were drawn, nats.

    Returns:
        "sampling_logp_difference", the mean of |log π_update − log π_sampling|, nats, and the least and the greatest
        "importance_sampling_ratio_min" and "..._max" (the names of TRL's GRPO).
    """
    policy.set_training_mode(True)
    found = policy.evaluate_actions(packed, packed.actions)[1]
    policy.set_training_mode(False)
    gap = found.double() - written.to(found.device).double()
    return {
        "sampling_logp_difference": float(gap.abs().mean()),
        "importance_sampling_ratio_min": float(gap.min().exp()),
        "importance_sampling_ratio_max": float(gap.max().exp()),
    }
