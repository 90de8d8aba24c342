"""Features: frozen vectors of texts - sentence embeddings, a language model's hidden states, hashed n-grams - computed once per text."""

from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.lm.source import resolve_model
from textgym.reward_modeling.reward_folder import folder_hash
from textgym.reward_modeling.scorers.scorer import TokenView, masked_tokens

BATCH = 64  # texts of similar length at a time


class Features(Protocol):
    """Frozen features."""

    @property
    def size(self) -> int:
        """Of a vector."""

    def of(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors, (n, size) float32; each depends on its own text alone."""

    def identity(self) -> Hashable:
        """Return what makes the vectors: features with an equal one give equal vectors."""

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of the weights behind them, by model name."""


class SentenceEmbeddings:
    """Sentence embeddings of a sentence-transformers model (Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084).

    Args:
        model: A registered name ("minilm"), a directory or a hub id.
        device: Where it runs.
    """

    def __init__(self, model: str = "minilm", device: str = "cpu") -> None:
        self.model, self.device = model, device

    @cached_property
    def _encoder(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise MissingExtraError("sentence embeddings", "embedding") from None
        from textgym.lm.language_model import no_progress_bars

        with no_progress_bars():
            return SentenceTransformer(resolve_model(self.model), device=self.device)

    @cached_property
    def size(self) -> int:
        """Of a vector."""
        size = getattr(self._encoder, "get_embedding_dimension", None) or self._encoder.get_sentence_embedding_dimension
        return int(size())

    def of(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings, (n, size)."""
        if not texts:
            return torch.zeros(0, self.size)
        found = self._encoder.encode(list(texts), batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False)
        return found.float().cpu().clone()  # type: ignore[no-any-return]  # clone: out of inference mode

    def identity(self) -> Hashable:
        """Return what makes the vectors."""
        return ("embedding", self.model, self.device)

    def sources(self) -> dict[str, str]:
        """Return the model's hash."""
        return {self.model: _source_hash(self.model)}


class HiddenStates:
    """A causal language model's last-layer hidden states: their mean over the text, and the one at its end, side by side.

    Args:
        model: A registered name ("reviews"), a directory, a `.gguf` file or a hub id.
        device: Where it runs.
    """

    def __init__(self, model: str = "reviews", device: str = "cpu") -> None:
        self.model, self.device = model, device

    @cached_property
    def _lm(self) -> Any:
        from textgym.lm.language_model import load_language_model

        return load_language_model(self.model, device=self.device).eval()

    @cached_property
    def size(self) -> int:
        """Of a vector: twice the model's hidden size."""
        return 2 * int(self._lm.hidden_size)

    @torch.no_grad()
    def of(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors, (n, size); texts are cut at the model's context length."""
        from textgym.tokenization import load_vocabulary

        vocabulary = load_vocabulary(self.model)
        ids = [i[: vocabulary.context_length] for i in vocabulary.encode(list(texts))]
        found = torch.zeros(len(ids), self.size)
        for rows in batches_by_length([len(i) for i in ids], BATCH):
            input_ids, mask = padded([ids[row] for row in rows], vocabulary.pad_id, self.device)
            # causal attention never looks right, so padding on the right needs no mask
            hidden = self._lm.trunk[0](input_ids=input_ids, use_cache=False).last_hidden_state  # (n, L, hidden)
            found[rows] = _mean_and_last(hidden, mask).cpu()
        return found

    def token_view(self, text: str) -> TokenView:
        """Return the text token by token, its outputs being the vectors, (n, size)."""
        from textgym.tokenization import load_vocabulary

        vocabulary = load_vocabulary(self.model)
        ids, masked, spans = masked_tokens(vocabulary.tokenizer, text, vocabulary.context_length, vocabulary.pad_id)

        def outputs(embeddings: Tensor) -> Tensor:
            hidden = self._lm.trunk[0](inputs_embeds=embeddings, use_cache=False).last_hidden_state
            return _mean_and_last(hidden, torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device))

        table = self._lm.trunk[0].get_input_embeddings()
        return TokenView(tuple(ids), tuple(masked), tuple(spans), lambda i: table(i.to(self.device)), outputs)

    def identity(self) -> Hashable:
        """Return what makes the vectors."""
        return ("lm", self.model, self.device)

    def sources(self) -> dict[str, str]:
        """Return the model's hash."""
        return {self.model: _source_hash(self.model)}


class HashedNgrams:
    """Runs of two to five characters inside words, hashed into `size` signed counts of unit norm; needs no model.

    Weinberger et al. (2009), "Feature Hashing for Large Scale Multitask Learning", arXiv:0902.2206.

    Args:
        size: Of a vector.
    """

    def __init__(self, size: int = 2048) -> None:
        if size < 1:
            raise InvalidArgumentError(f"hashed features need a size of at least 1, got {size}")
        self.size = int(size)

    @cached_property
    def _vectorizer(self) -> Any:
        try:
            from sklearn.feature_extraction.text import HashingVectorizer
        except ImportError:
            raise MissingExtraError("hashed n-grams", "reward-modeling") from None
        return HashingVectorizer(n_features=self.size, analyzer="char_wb", ngram_range=(2, 5), norm="l2")

    def of(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors, (n, size)."""
        return torch.from_numpy(self._vectorizer.transform(list(texts)).toarray()).float()

    def identity(self) -> Hashable:
        """Return what makes the vectors."""
        return ("hashed", self.size)

    def sources(self) -> dict[str, str]:
        """Return nothing: there are no weights."""
        return {}


def _mean_and_last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return mean and last of the hidden states (n, L, hidden) that `mask` (n, L) keeps, side by side, (n, 2 hidden) float32."""
    hidden = hidden.float()
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.cat([mean, hidden[torch.arange(len(hidden)), mask.sum(1).long() - 1]], dim=1)


def batches_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return all row numbers in batches of similar length, so that little is spent on padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + size] for i in range(0, len(order), size)]


def padded(ids: Sequence[Sequence[int]], pad_id: int, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids right-padded to a multiple of eight, (n, L) int64, and their mask, (n, L) int64."""
    width = -(-max(map(len, ids)) // 8) * 8  # few different widths: kernels are reused
    input_ids, mask = torch.full((len(ids), width), pad_id), torch.zeros(len(ids), width, dtype=torch.long)
    for row, text in enumerate(ids):
        input_ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return input_ids.to(device), mask.to(device)


@lru_cache(maxsize=16)
def _source_hash(model: str) -> str:
    return folder_hash(resolve_model(model))
