"""The reward "log-prob": how probable a continuation is under a frozen language model (autoregressive probability)."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import textgym

if TYPE_CHECKING:
    from textgym.policies.reference import ReferenceModel
    from textgym.tokenization import Vocabulary


class LogProb:
    """Mean natural log-probability per token of the continuation under a frozen language model; at most 0 nats.

    Args:
        model: Name, directory, `.gguf` file or hub id of the language model; it reads the texts with its own tokenizer.
        device: Where it runs.
        dtype: Of its weights.
        dense: True pays each token its own log-probability when it is chosen (their sum over an episode is the text's log-probability), at
            one cached pass per token; the policy must then use the same vocabulary. False pays the mean at the end.

    An empty continuation scores the log-probability of ending the text at once.
    """

    high = 0.0
    deterministic = True

    def __init__(self, model: str = "reviews", device: str = "cpu", dtype: str = "float32", dense: bool = False) -> None:
        self.model, self.device, self.dtype, self.dense = model, device, dtype, dense

    @cached_property
    def _reference(self) -> "ReferenceModel":
        from textgym.policies.reference import ReferenceModel

        return ReferenceModel(self.model, self.device, self.dtype)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the mean log-probability per token, (n,), in nats."""
        from textgym.lm.token_distribution import SamplingRule
        from textgym.tokenization import load_vocabulary

        vocabulary = load_vocabulary(self.model)
        prompts = vocabulary.encode([e.prompt for e in episodes])
        wholes = vocabulary.encode([e.text for e in episodes])
        segments = []
        for prompt, whole in zip(prompts, wholes, strict=True):
            limit = vocabulary.context_length
            start = min(len(prompt), len(whole), limit - 1)
            chosen = whole[start:limit] or [min(vocabulary.eos_ids)]
            segments.append((np.array(whole[:start], np.int64), np.array(chosen, np.int64)))
        # one text at a time, so that a batch scores exactly as its texts alone
        return [float(self._reference.log_probs([segment], SamplingRule(), None).mean()) for segment in segments]

    def token_scorer(self, n_rows: int, vocabulary: "Vocabulary") -> "TokenLogProb | None":
        """Return the dense form, or None if it was not asked for."""
        if not self.dense:
            return None
        if vocabulary.size != self._reference.lm.vocabulary_size:
            raise textgym.InvalidArgumentError(
                f"log-prob with dense=True reads the policy's tokens, but {self.model!r} has {self._reference.lm.vocabulary_size} and "
                f"{vocabulary.model!r} has {vocabulary.size}"
            )
        return TokenLogProb(self._reference, n_rows, vocabulary)


class TokenLogProb:
    """The dense form of "log-prob": one cached pass per token, whatever the prefix's length."""

    def __init__(self, reference: "ReferenceModel", n_rows: int, vocabulary: "Vocabulary") -> None:
        from textgym.lm.prefix_cache import PrefixCache

        self._lm, self._device, self._vocabulary = reference.lm, reference.device, vocabulary
        self._cache = PrefixCache(reference.lm, n_slots=1)
        self._ids: list[list[int]] = [[0] for _ in range(n_rows)]

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new texts in `rows`."""
        for row, prompt in zip(rows, prompts, strict=True):
            self._ids[row] = list(prompt)

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability of the newest token of each row, in nats."""
        import torch

        width = self._vocabulary.context_length
        input_ids = torch.zeros(len(self._ids), width, dtype=torch.long, device=self._device)
        mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(self._ids):
            input_ids[row, : len(ids)] = torch.tensor(ids, device=self._device)
            mask[row, : len(ids)] = 1
        log_probs = self._lm.logits(self._cache.last_hidden(input_ids, mask)).float().log_softmax(-1)
        scores = [float(log_probs[row, token]) for row, token in zip(rows, token_ids, strict=True)]
        for row, token in zip(rows, token_ids, strict=True):
            self._ids[row].append(token)
        return scores


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("log-prob", LogProb)
