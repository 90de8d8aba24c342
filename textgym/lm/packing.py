"""PackedBatch: segments of token streams laid side by side in few rows, for one transformer pass over all their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Token streams in rows, and where in them the actions were chosen.

    A row holds one segment or several; tokens see only the earlier tokens of their own segment.

    Attributes:
        input_ids: (rows, width) int64.
        position_ids: (rows, width) int64, counted from each segment's start; None when every row starts with its only segment.
        segment_ids: (rows, width) int64, equal within a segment; None as above (causal attention then needs no further mask).
        action_rows, action_columns: (T,) int64, the position whose output chose each action.
        actions: (T,) int64, in the order of the segments.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    segment_ids: Tensor | None
    action_rows: Tensor
    action_columns: Tensor
    actions: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def to(self, device: torch.device) -> "PackedBatch":
        """Return the batch on a device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return PackedBatch(
            self.input_ids.to(device),
            moved(self.position_ids),
            moved(self.segment_ids),
            self.action_rows.to(device),
            self.action_columns.to(device),
            self.actions.to(device),
        )

    def attention_mask(self, dtype: torch.dtype) -> Tensor | None:
        """Return the additive mask (rows, 1, width, width) that keeps segments apart, or None where plain causal attention does."""
        if self.segment_ids is None:
            return None
        same = self.segment_ids[:, :, None] == self.segment_ids[:, None, :]  # (rows, width, width)
        visible = same.tril()
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)
        return mask[:, None]


def pack(segments: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], pad_id: int = 0) -> PackedBatch:
    """Lay segments (prefix ids, action ids) out in rows.

    The last action of a segment chooses nothing more, so it is not part of the input. Rows are as wide as the longest segment, or a small
    multiple of it where that leaves less padding (first-fit decreasing).
    """
    lengths = [len(prefix) + len(actions) - 1 for prefix, actions in segments]
    places, n_rows, width = _place(lengths)
    input_ids = np.full((n_rows, width), pad_id, np.int64)
    shared = n_rows < len(segments)
    position_ids = np.zeros((n_rows, width), np.int64) if shared else None
    segment_ids = np.full((n_rows, width), -1, np.int64) if shared else None
    rows, columns = [], []
    for number, ((prefix, actions), (row, start)) in enumerate(zip(segments, places, strict=True)):
        stop, chosen = start + lengths[number], start + len(prefix)
        input_ids[row, start:chosen] = prefix
        input_ids[row, chosen:stop] = actions[:-1]
        if position_ids is not None and segment_ids is not None:
            position_ids[row, start:stop] = np.arange(lengths[number])
            segment_ids[row, start:stop] = number
        rows.append(np.full(len(actions), row, np.int64))
        columns.append(np.arange(chosen - 1, stop, dtype=np.int64))
    return PackedBatch(
        torch.from_numpy(input_ids),
        None if position_ids is None else torch.from_numpy(position_ids),
        None if segment_ids is None else torch.from_numpy(segment_ids),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(columns)),
        torch.from_numpy(np.concatenate([actions for _, actions in segments]).astype(np.int64)),
    )


def _place(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int, int]:
    """Return (row, start) of each segment, the number of rows and their width, with the least area of three widths."""
    longest = max(lengths)
    best: tuple[int, list[tuple[int, int]], int, int] | None = None
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for width in (longest, 2 * longest, 3 * longest):
        free: list[int] = []
        places: list[tuple[int, int]] = [(0, 0)] * len(lengths)
        for i in order:
            row = next((r for r, space in enumerate(free) if space >= lengths[i]), None)
            if row is None:
                row = len(free)
                free.append(width)
            places[i] = (row, width - free[row])
            free[row] -= lengths[i]
        area = len(free) * width
        if best is None or area < 0.95 * best[0]:  # wider rows cost attention, so they must save something
            best = (area, places, len(free), width)
        if area <= 1.05 * sum(lengths):
            break
    assert best is not None
    return best[1], best[2], best[3]
