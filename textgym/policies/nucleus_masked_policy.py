"""NucleusMaskedPolicy: a causal LM policy that may choose only what a lagging copy of itself finds probable."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.lm.packing import PackedBatch
from textgym.lm.prefix_cache import PrefixCache
from textgym.policies.causal_lm_policy import CausalLMPolicy


class NucleusMaskedPolicy(CausalLMPolicy):
    """`CausalLMPolicy` under a top-p mask: the fewest tokens that together have probability `top_p` under a lagging copy of the policy.

    The mask is computed anew in the update rather than stored: the copy moves only between iterations, so both masks are the same, and memory
    does not grow by vocabulary × tokens.

    Args:
        *args: Those of `CausalLMPolicy`.
        top_p: Share of the copy's probability that stays allowed, 0 to 1.
        **settings: Those of `CausalLMPolicy`.

    Attributes:
        mask_lm: The copy; frozen, not in the optimizer.

    References:
        Ramamurthy et al. 2022, arXiv:2210.01241, section 5 (NLPO; their ψ is our `mask_lm`).
    """

    def __init__(self, *args: Any, top_p: float = 0.9, **settings: Any) -> None:
        if not 0 < top_p <= 1:
            raise InvalidArgumentError(f"top_p must be above 0 and at most 1, got {top_p}")
        super().__init__(*args, **settings)
        self.settings["top_p"] = self.top_p = top_p
        self.mask_lm = copy.deepcopy(self.lm).requires_grad_(False)
        self.mask_cache = PrefixCache(self.mask_lm)

    @torch.no_grad()
    def update_mask(self) -> None:
        """Bring the copy to the policy's present weights."""
        self.mask_lm.load_state_dict(self.lm.state_dict())
        self.mask_cache.clear()

    def clear_cache(self) -> None:
        """Forget every prefix that was read."""
        super().clear_cache()
        self.mask_cache.clear()

    def move_cached_rows(self, sources: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], n_left: int) -> None:
        """Move rows in both caches."""
        super().move_cached_rows(sources, targets, n_left)
        self.mask_cache.move_rows(sources, targets, n_left)

    @torch.no_grad()
    def _allowed_after(self, obs: dict[str, Tensor] | PackedBatch, cached: bool, chosen: Tensor | None = None) -> Tensor:
        if isinstance(obs, PackedBatch):
            hidden = self.mask_lm.packed_hidden(obs)
        elif cached:
            hidden = self.mask_cache.last_hidden(obs["input_ids"].long(), obs["attention_mask"].long())
        else:
            hidden = self.mask_lm.last_hidden(obs["input_ids"].long(), obs["attention_mask"].long().sum(1))
        keep = nucleus(self.rule.apply(self.mask_lm.logits(hidden), self.allowed), self.top_p)
        if chosen is not None:  # rounding may put the last token of a nucleus in or out; what was drawn was in
            keep = keep.scatter(-1, chosen[:, None], True)
        return keep & self.allowed


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return the fewest most probable tokens that together have at least probability `top_p`, (batch, vocab) bool, at least one a row.

    References:
        Holtzman et al. 2020, arXiv:1904.09751.
    """
    probs, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probs.cumsum(-1) - probs  # probability of what is more probable
    return torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, (before < top_p).index_fill(-1, order.new_zeros(1), True))
