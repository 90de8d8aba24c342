"""The reward "log-prob": how probable a continuation is under a frozen language model (autoregressive probability)."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import textgym

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textgym.policies.reference import ReferenceModel
    from textgym.tokenization import Vocabulary


class LogProb:
    """Log-probability of the continuation under a frozen language model, mean per token; at most 0 nats.

    Args:
        model: Name, directory, `.gguf` file or hub id of the language model; it reads the texts with its own tokenizer.
        device: Where it runs.
        dtype: Of its weights.
        dense: True pays each token its own log-probability when it is chosen, at one cached pass per token; the policy must then use the
            same vocabulary, and the score of a finished episode is the sum over its tokens. False pays the mean at the end.

    An empty continuation scores the log-probability of ending the text at once.
    """

    high = 0.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, model: str = "reviews", device: str = "cpu", dtype: str = "float32", dense: bool = False) -> None:
        self.model, self.device, self.dtype, self.dense = model, device, dtype, dense

    @cached_property
    def _reference(self) -> "ReferenceModel":
        from textgym.policies.reference import ReferenceModel

        return ReferenceModel(self.model, self.device, self.dtype)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the mean log-probability per token, (n,), in nats; with `dense` the sum."""
        return [float(values.sum() if self.dense else values.mean()) for values in self.score_tokens(episodes)]

    def score_tokens(self, episodes: Sequence[textgym.Episode]) -> "list[NDArray[np.float32]]":
        """Return the log-probability of every token of each continuation, in nats.

        With `dense` the tokens are the episode's own, where it has them; else the model's own tokenizer reads the text.
        """
        from textgym.lm.token_distribution import SamplingRule
        from textgym.tokenization import load_vocabulary

        vocabulary = load_vocabulary(self.model)
        prompts = vocabulary.encode([e.prompt for e in episodes])
        wholes = vocabulary.encode([e.text for e in episodes])
        segments = []
        for episode, prompt, whole in zip(episodes, prompts, wholes, strict=True):
            if self.dense and episode.continuation_ids:
                segments.append((np.array(episode.prompt_ids, np.int64), np.array(episode.continuation_ids, np.int64)))
                continue
            limit = vocabulary.context_length
            start = min(len(prompt), len(whole), limit - 1)
            chosen = whole[start:limit] or [min(vocabulary.eos_ids)]
            segments.append((np.array(whole[:start], np.int64), np.array(chosen, np.int64)))
        # one text at a time, so that a batch scores exactly as its texts alone
        return [self._reference.log_probs([segment], SamplingRule(), None) for segment in segments]

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
        import torch

        from textgym.lm.prefix_cache import PrefixCache

        self._lm, self._device, self._limit = reference.lm, reference.device, vocabulary.context_length
        self._cache = PrefixCache(reference.lm, n_slots=1)
        self._ids = torch.zeros(n_rows, 0, dtype=torch.long, device=reference.device)
        self._length = torch.ones(n_rows, dtype=torch.long, device=reference.device)  # rows that never began read one token 0

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new texts in `rows`."""
        import torch

        self._reserve(max(map(len, prompts), default=1))
        for row, prompt in zip(rows, prompts, strict=True):
            self._ids[row, : len(prompt)] = torch.tensor(prompt, device=self._device)
            self._length[row] = len(prompt)

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability of the newest token of each row, in nats."""
        import torch

        width = self._ids.shape[1]
        mask = (torch.arange(width, device=self._device) < self._length[:, None]).long()
        which, tokens = torch.tensor([list(rows), list(token_ids)], device=self._device)
        log_probs = self._lm.logits(self._cache.last_hidden(self._ids, mask)[which]).float().log_softmax(-1)
        if int(self._length[which].max()) == width:
            self._reserve(width + 1)
        self._ids[which, self._length[which]] = tokens
        self._length[which] += 1
        scores: list[float] = log_probs.gather(1, tokens[:, None]).squeeze(1).tolist()
        return scores

    def _reserve(self, width: int) -> None:
        """Make room for `width` tokens: at least doubled, so that the texts are read anew only a few times."""
        import torch

        have = self._ids.shape[1]
        if width > have:
            wanted = max(width, min(self._limit, max(64, 2 * have)))
            self._ids = torch.nn.functional.pad(self._ids, (0, wanted - have))


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("log-prob", LogProb)
