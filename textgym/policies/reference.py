"""ReferenceModel: the frozen language model that a policy is held close to."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.lm.language_model import LanguageModel, load_language_model
from textgym.lm.packing import PackedBatch, pack
from textgym.lm.token_distribution import SamplingRule

TOKENS_PER_PASS = 2048  # bounds the (tokens, vocab) logits in memory


class ReferenceModel:
    """Frozen log-probabilities, one pass per segment.

    Args:
        model: Name, directory, `.gguf` file or hub id.
        device: Where it runs.
        dtype: Of its weights.
        adapted: A language model that learns by adapters; if it is based on `model`, it is asked with its adapters off, and no second copy is
            loaded.
        held: That very model, frozen, if somebody has it in memory: it is asked, and no second copy is loaded.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        adapted: LanguageModel | None = None,
        held: LanguageModel | None = None,
    ) -> None:
        if held is None and adapted is not None and adapted.is_based_on(model):
            held = adapted
        self.lm = load_language_model(model, dtype, device).eval().requires_grad_(False) if held is None else held
        self.device = torch.device(device)

    @torch.no_grad()
    def log_probs_of_all(self, batch: PackedBatch, rule: SamplingRule, allowed: Tensor | None) -> Tensor:
        """Return the natural log-probability of every token where a batch has its T actions, (T, vocab) float32.

        Args:
            batch: On the model's device.
            rule, allowed: As for `log_probs`. A token outside of the model's own top k has what it would have if it had been chosen.
        """
        with self.lm.base():
            logits = self.lm.logits(self.lm.packed_hidden(batch))
        return rule.log_probs_if_chosen(logits, allowed)

    @torch.no_grad()
    def log_probs(
        self,
        segments: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
        rule: SamplingRule,
        allowed: NDArray[np.bool_] | None,
    ) -> NDArray[np.float32]:
        """Return the natural log-probability of every action of the segments (prefix ids, action ids), in order, (T,).

        Args:
            segments: Prefixes and the actions that followed.
            rule: The policy's sampling rule: KL is between the distributions that tokens are drawn from.
            allowed: (V,) bool, the tokens the policy may choose; None for all.
        """
        allowed_mask = None if allowed is None else torch.from_numpy(allowed.copy()).to(self.device)
        found: list[NDArray[np.float32]] = []
        start = 0
        while start < len(segments):
            stop, tokens = start, 0
            while stop < len(segments) and (stop == start or tokens + len(segments[stop][1]) <= TOKENS_PER_PASS):
                tokens += len(segments[stop][1])
                stop += 1
            batch = pack(segments[start:stop]).to(self.device)
            every = self.log_probs_of_all(batch, rule, allowed_mask)
            found.append(every.gather(-1, batch.actions[:, None]).squeeze(-1).cpu().numpy())
            start = stop
        return np.concatenate(found) if found else np.zeros(0, np.float32)
