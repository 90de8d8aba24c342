"""Micro-batches: texts dealt out in passes of bounded size, each with the columns of numbers that belong to its tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.lm.packing import PackedBatch, pack
from textgym.policies.generation import GeneratedText

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class MicroBatch:
    """Whole texts for one forward pass.

    Attributes:
        indices: Which of the given texts they are, in order.
        packed: Their tokens.
        columns: Name → (T,) float32, one number per action of `packed`.
        text_of_token: (T,) int64, the place in `indices` of the text that each action belongs to.
    """

    indices: list[int]
    packed: PackedBatch
    columns: Mapping[str, Tensor]
    text_of_token: Tensor

    def __len__(self) -> int:
        return len(self.packed)

    def sum_by_text(self, numbers: Tensor) -> Tensor:
        """Return the sums over each text's tokens, (texts,), of (T,) numbers."""
        return torch.zeros(len(self.indices), dtype=numbers.dtype, device=numbers.device).index_add(0, self.text_of_token, numbers)


def split_by_text(numbers: NDArray[Number], texts: Sequence[GeneratedText]) -> list[NDArray[Number]]:
    """Return the numbers of the texts' tokens, (T,) one text after the other, per text (tokens of it,), as views."""
    return np.split(numbers, np.cumsum([len(t.action_ids) for t in texts])[:-1]) if len(texts) else []


def micro_batches(
    texts: Sequence[GeneratedText],
    n_tokens: int,
    device: torch.device,
    columns: Mapping[str, Sequence[NDArray[np.floating]]] | None = None,
    order: Sequence[int] | None = None,
) -> Iterator[MicroBatch]:
    """Deal texts out in passes of about `n_tokens` actions, at least one text each.

    Args:
        texts: What was written.
        n_tokens: Bounds memory; it changes no result, for gradients are accumulated over the passes.
        device: Where the tensors go.
        columns: Name → per text (tokens of it,) numbers: advantages, old log-probabilities, ...
        order: Which texts, in which order; all by default.
    """
    part: list[int] = []
    tokens = 0
    everything = list(range(len(texts))) if order is None else list(order)
    for place, i in enumerate(everything):
        part.append(i)
        tokens += len(texts[i].action_ids)
        if tokens >= n_tokens or place == len(everything) - 1:
            yield _micro_batch(texts, part, device, columns or {})
            part, tokens = [], 0


def _micro_batch(
    texts: Sequence[GeneratedText], part: list[int], device: torch.device, columns: Mapping[str, Sequence[NDArray[np.floating]]]
) -> MicroBatch:
    packed = pack([(texts[i].prompt_ids, texts[i].action_ids) for i in part]).to(device)
    numbers = {
        name: torch.from_numpy(np.concatenate([values[i] for i in part]).astype(np.float32)).to(device) for name, values in columns.items()
    }
    lengths = [len(texts[i].action_ids) for i in part]
    return MicroBatch(part, packed, numbers, torch.from_numpy(np.repeat(np.arange(len(part)), lengths)).to(device))
