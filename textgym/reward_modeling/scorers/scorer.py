"""Scorer: a network from texts to numbers, interchangeable behind `prepare` and `forward`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgym.errors import InvalidArgumentError

Prepared = Sequence[Any]  # one entry per text: token ids, a vector of features


@dataclass(frozen=True)
class TokenView:
    """One text, seen token by token by what can be differentiated.

    Attributes:
        input_ids: (L,).
        baseline_ids: The same text with every token masked that stands for some of it, (L,).
        spans: Of each token the characters [start, stop) that it stands for, (L,); empty for a special token.
        embeddings: From ids (n, L) to vectors (n, L, hidden).
        outputs: From such vectors to the scorer's outputs, (n, n_outputs).
    """

    input_ids: tuple[int, ...]
    baseline_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    embeddings: Callable[[Tensor], Tensor]
    outputs: Callable[[Tensor], Tensor]


def masked_tokens(tokenizer: Any, text: str, max_tokens: int, filler: int) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return ids, masked ids and spans of a text, cut at `max_tokens`; `filler` masks where the tokenizer has no mask token."""
    if not tokenizer.is_fast:
        raise InvalidArgumentError("integrated gradients need a fast tokenizer, which tells the place of each token; use shapley")
    found = tokenizer(
        text, truncation=True, max_length=max_tokens, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    mask = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else filler
    special = [bool(s) or stop <= start for s, (start, stop) in zip(found["special_tokens_mask"], found["offset_mapping"], strict=True)]
    spans = [(0, 0) if s else (int(a), int(b)) for s, (a, b) in zip(special, found["offset_mapping"], strict=True)]
    ids = [int(i) for i in found["input_ids"]]
    return ids, [i if s else mask for i, s in zip(ids, special, strict=True)], spans


class Scorer(nn.Module, ABC):
    """Texts to outputs (n, n_outputs); what an output means is the objective's business.

    Attributes:
        name: As on the command line and in the folder of a fitted model.
        packages: Whose versions matter for the outputs.
        epochs, batch_size, learning_rate: What suits this scorer if the user says nothing.
        n_outputs: Outputs for each text.
        closed_form: True if it is fitted at once by `solve`, not step by step.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    epochs: ClassVar[int]
    batch_size: ClassVar[int]
    learning_rate: ClassVar[float]
    closed_form: ClassVar[bool] = False
    n_outputs: int

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments that make it anew beside `n_outputs`, as plain data."""

    @abstractmethod
    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Return what is computed once per text, whatever happens to the weights."""

    def preparation(self) -> Hashable | None:
        """Return all that `prepare` depends on beside the texts: scorers with an equal one may share what it returns. None shares nothing."""
        return None

    def begin(self, texts: Sequence[str], worths: NDArray[np.float64] | None = None) -> Prepared:
        """Take from the training texts what must be known before the first step (a vocabulary, a scale); return them prepared.

        Args:
            texts: The training texts, (m,).
            worths: What the judgements say of each, (m, k), as `Objective.worths` puts it; None where nobody knows.
        """
        del worths
        return self.prepare(texts)

    def length(self, entry: Any) -> int:
        """Return the length of a prepared text; texts of similar length share a batch. Only token ids differ in it."""
        return len(entry) if isinstance(entry, list) else 0

    def regularisation(self) -> Tensor | float:
        """Return what is added to the loss of each step, beside the optimizer's weight decay."""
        return 0.0

    def words(self) -> list[str]:
        """Return the whole words in the vocabulary behind the scorer; none where there is no such vocabulary."""
        return []

    @abstractmethod
    def forward(self, prepared: Prepared) -> Tensor:
        """Return the outputs, (n, n_outputs) float32."""

    def embed(self, prepared: Prepared) -> Tensor:
        """Return the texts' vectors before the head, (n, d); raises where nothing that learns produces them."""
        del prepared
        raise InvalidArgumentError(f"the scorer {self.name!r} has no encoder that learns; contrastive terms need 'transformer'")

    def token_view(self, text: str) -> TokenView:
        """Return what integrated gradients need of a text; raises for a scorer that cannot be differentiated by its tokens."""
        del text
        raise InvalidArgumentError(f"the scorer {self.name!r} cannot be differentiated by its tokens: explain it by shapley or occlusion")

    def solve(self, texts: Sequence[str], objective: nn.Module, items: Sequence[Any], seed: int) -> None:
        """Fit at once on the training items, where `closed_form` is true."""
        raise NotImplementedError

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what an optimizer trains, at which rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": learning_rate}]

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of what lies outside the saved folder but is part of the model, by name."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return the arrays that are saved with the model."""
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        self.load_state_dict(dict(state))

    def save_assets(self, folder: Path) -> None:
        """Write what else a folder needs (tokenizer, configuration, vocabulary); plain text only."""

    @classmethod
    def load(cls, folder: Path, n_outputs: int, settings: Mapping[str, Any], device: str) -> "Scorer":
        """Return a scorer of this folder, its `state` still to be restored."""
        del folder
        made: Any = cls
        scorer: Scorer = made(n_outputs, device=device, **settings)
        return scorer


def stacked(prepared: Prepared, device: str) -> Tensor:
    """Return prepared vectors as one tensor, (n, d)."""
    return torch.stack(list(prepared)).to(device)
