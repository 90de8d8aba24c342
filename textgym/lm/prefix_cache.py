"""PrefixCache: the hidden state after each prefix of a running batch, at one forward pass per new token."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.lm.language_model import LanguageModel
from textgym.lm.row_cache import RowCache


@dataclass
class _Slot:
    """The cache of one batch: which tokens each row has read, (n, L), and how many.

    `resizable` is set when rows were moved: the batch may then be asked for with fewer rows than n, the first ones.
    """

    cache: RowCache
    ids: Tensor
    lengths: Tensor
    resizable: bool = False

    def takes(self, input_ids: Tensor) -> bool:
        n, width = self.ids.shape
        return width == input_ids.shape[1] and (n == len(input_ids) or (self.resizable and n > len(input_ids)))


class PrefixCache:
    """Keys and values of running texts, trusted by content alone.

    A row is reused only if the tokens it has read are the given prefix less its last token; else it is read anew. So it does not matter who
    asks, in which order, and when episodes end: evaluation calls may interleave with a rollout (continuous batching).

    Args:
        language_model: The model. Its weights are watched: the cache empties itself when their version counters move, or, as fused optimizers
            move none, when the values of one small trainable weight change.
        n_slots: Number of batches kept apart (a rollout and an evaluation).
    """

    def __init__(self, language_model: LanguageModel, n_slots: int = 2) -> None:
        self._lm, self._n_slots = language_model, n_slots
        self._weights = list(language_model.parameters())  # listing them anew costs more than a step of a small model should
        # an adapter's first matrix gets no gradient while its second is still 0
        trained = [p for n, p in language_model.named_parameters() if p.requires_grad and "lora_A" not in n] or self._weights
        self._probe = min(reversed(trained), key=torch.Tensor.numel)  # of the smallest the last, nearest to the loss: the final norm's
        self._slots: list[_Slot] = []
        self._version, self._probed = -1, self._probe.detach().clone()

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()

    @torch.no_grad()
    def last_hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the hidden state at the end of each right-padded prefix (n, L): (n, hidden)."""
        self._forget_if_weights_moved()
        lengths = attention_mask.sum(1)
        slot, known = self._slot(input_ids, lengths)
        unread = (~known & (lengths > 1)).nonzero().squeeze(-1)
        if len(unread):
            start = int(lengths[unread].max()) - 1
            self._lm.prefill(slot.cache, unread, input_ids[unread, :start])
        columns = lengths - 1
        tokens = input_ids.gather(1, columns[:, None]).squeeze(1)
        hidden = self._lm.decode(slot.cache, tokens, columns, int(lengths.max()))
        slot.ids[: len(input_ids)], slot.lengths[: len(input_ids)] = input_ids, lengths
        return hidden

    def move_rows(self, sources: NDArray[np.int64], targets: NDArray[np.int64], n_left: int) -> None:
        """Let rows of the batch that was asked last take the places of others; only the first `n_left` are known from now on."""
        if not self._slots:
            return
        slot = self._slots[-1]
        device = slot.ids.device
        taken, given = torch.from_numpy(sources).to(device), torch.from_numpy(targets).to(device)
        slot.cache.move(taken, given)
        slot.ids[given], slot.lengths[given] = slot.ids[taken], slot.lengths[taken]
        slot.ids[n_left:], slot.lengths[n_left:] = -1, 0
        slot.resizable = True

    def _forget_if_weights_moved(self) -> None:
        version = sum(p._version for p in self._weights)
        probe = self._probe.detach()
        same_kind = probe.device == self._probed.device and probe.dtype == self._probed.dtype
        if version != self._version or not same_kind or not torch.equal(probe, self._probed):
            self.clear()
            self._version, self._probed = version, probe.clone()

    def _slot(self, input_ids: Tensor, lengths: Tensor) -> tuple[_Slot, Tensor]:
        """Return the slot that knows most of these prefixes, and which rows it knows, (n,) bool."""
        best, most = None, 0
        for slot in self._slots:
            if slot.takes(input_ids):
                # read at least up to the last token, and the same tokens
                columns = torch.arange(input_ids.shape[1], device=input_ids.device)
                same = (slot.ids[: len(input_ids)] == input_ids) | (columns >= (lengths - 1)[:, None])
                known = same.all(1) & (slot.lengths[: len(input_ids)] >= lengths - 1)
                count = int(known.sum())
                if count > most:
                    best, most, best_known = slot, count, known
        if best is None:
            if len(self._slots) >= self._n_slots:
                self._slots.pop(0)
            n, width = input_ids.shape
            best = _Slot(RowCache(n, width), torch.full_like(input_ids, -1), torch.zeros_like(lengths))
            best_known = torch.zeros_like(lengths, dtype=torch.bool)
        else:
            self._slots = [s for s in self._slots if s is not best]
        self._slots.append(best)  # least recently used first
        return best, best_known
