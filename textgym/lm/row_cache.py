"""RowCache: preallocated keys and values of running texts, one row a text, left-aligned, so that rows may have any length."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class RowCache(Cache):  # transformers' Cache is untyped
    """Keys and values (n_rows, heads, max_length, head size) of every layer, written in place.

    Nothing is concatenated, moved or compacted as texts grow, end and restart: a row that restarts is overwritten from its column 0, and the
    attention mask hides what lies beyond each row's length.
    """

    def __init__(self, n_rows: int, max_length: int) -> None:
        super().__init__(layers=[])
        self.n_rows, self.max_length = n_rows, max_length
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._rows: Tensor | None = None
        self._columns: Tensor | None = None
        self._width = 0

    def write_to(self, rows: Tensor | None, columns: Tensor, width: int) -> None:
        """Say where the next forward pass writes and how far it reads.

        Args:
            rows: (m,) rows of a prefill from column 0, whose queries need no earlier keys; None for a decode step of the first n rows.
            columns: (m, q) or (n, 1) int64, the column of each token.
            width: Columns a decode step attends to.
        """
        self._rows, self._columns, self._width = rows, columns, width

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store (m, heads, q, head size) keys and values of a layer; return those that the queries may attend to."""
        if layer_idx == len(self._keys):
            shape = (self.n_rows, key_states.shape[1], self.max_length)
            self._keys.append(torch.zeros(*shape, key_states.shape[3], dtype=key_states.dtype, device=key_states.device))
            self._values.append(torch.zeros(*shape, value_states.shape[3], dtype=value_states.dtype, device=value_states.device))
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._rows is not None:
            q = key_states.shape[2]
            keys[self._rows, :, :q] = key_states
            values[self._rows, :, :q] = value_states
            return key_states, value_states
        if self._columns is None:
            raise RuntimeError("write_to must be called before the forward pass")
        n = len(key_states)
        every = torch.arange(n, device=keys.device)
        keys[every, :, self._columns[:, 0]] = key_states[:, :, 0]
        values[every, :, self._columns[:, 0]] = value_states[:, :, 0]
        return keys[:n, :, : self._width], values[:n, :, : self._width]

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Let rows take the places of others."""
        for kept in (*self._keys, *self._values):
            kept[targets] = kept[sources]

    def widen(self, max_length: int) -> None:
        """Make room for longer texts, keeping what is there."""
        more = max_length - self.max_length
        self._keys, self._values = (
            [torch.nn.functional.pad(kept, (0, 0, 0, more)) for kept in side] for side in (self._keys, self._values)
        )
        self.max_length = max_length

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Return 0: positions and masks are always passed explicitly."""
        return 0
