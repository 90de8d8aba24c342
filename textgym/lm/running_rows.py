"""RunningRows: a language model that reads texts as they grow, one row a text, each token once."""

from collections.abc import Sequence
from itertools import chain, repeat

import torch
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.lm.language_model import LanguageModel
from textgym.lm.row_cache import RowCache

FIRST_WIDTH = 64  # tokens for which the cache has room at first


class RunningRows:
    """Rows of running texts, behind rewards that pay token by token.

    Args:
        lm: Reads.
        n_rows: Texts side by side.
        context_length: Tokens that a text may have.
        asker: Who reads, for errors.
    """

    def __init__(self, lm: LanguageModel, n_rows: int, context_length: int, asker: str) -> None:
        self._lm, self._limit, self._asker = lm, context_length, asker
        self._device = lm.output[0].weight.device
        self._cache = RowCache(n_rows, min(FIRST_WIDTH, context_length))
        self._column = torch.zeros(n_rows, dtype=torch.long, device=self._device)  # where each row's next token will stand

    def start(self, rows: Sequence[int], texts: Sequence[Sequence[int]]) -> None:
        """Begin new texts in `rows` with these tokens, possibly none."""
        lengths = [len(text) for text in texts]
        longest = max(lengths, default=0)
        self._reserve(longest)
        which = torch.tensor(list(rows), dtype=torch.long, device=self._device)
        self._column[which] = torch.tensor(lengths, dtype=torch.long, device=self._device)
        if longest:
            padded = [list(chain(text, repeat(0, longest - len(text)))) for text in texts]
            with torch.inference_mode():
                self._lm.prefill(self._cache, which, torch.tensor(padded, device=self._device))

    def step(self, rows: Tensor, token_ids: Tensor) -> Tensor:
        """Read one more token of each of `rows`, (m,) each; return the hidden states after it, (m, hidden)."""
        self._reserve(int(self._column[rows].max()) + 1)
        width = min(int(self._column.max()) + 1, self._cache.max_length)
        tokens = torch.zeros_like(self._column)
        tokens[rows] = token_ids
        with torch.inference_mode():
            # rows that are not asked read a token that their own next one overwrites; full ones are never asked again
            hidden = self._lm.decode(self._cache, tokens, self._column.clamp(max=width - 1), width)
        self._column[rows] += 1
        return hidden[rows]

    def _reserve(self, width: int) -> None:
        """Make room for `width` tokens: at least doubled, so that the cache is copied only a few times."""
        have = self._cache.max_length
        if width > self._limit:
            raise InvalidArgumentError(f"{self._asker}: a text of {width} tokens exceeds the model's context of {self._limit}")
        if width > have:
            self._cache.widen(max(width, min(self._limit, 2 * have)))
