"""The reward "log-prob": how probable a continuation is under a frozen language model (autoregressive probability)."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import textgym

FIRST_WIDTH = 64  # tokens for which a cache has room at first

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
        self.reads_tokens = dense

    @cached_property
    def _reference(self) -> "ReferenceModel":
        from textgym.policies.reference import ReferenceModel

        return ReferenceModel(self.model, self.device, self.dtype)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the mean log-probability per token, (n,), in nats; with `dense` the sum."""
        return [float(values.sum() if self.dense else values.mean()) for values in self.score_tokens(episodes)]

    def score_tokens(self, episodes: Sequence[textgym.Episode]) -> "list[NDArray[np.float32]]":
        """Return the log-probability of every token of each continuation, in nats.

        With `dense` the tokens are the episode's own, where it has the prompt's and the continuation's; else the model's own tokenizer
        reads the text. (What another trainer passes has the continuation's alone, and those are its own model's.)
        """
        from textgym.lm.token_distribution import SamplingRule
        from textgym.tokenization import load_vocabulary

        vocabulary = load_vocabulary(self.model)
        prompts = vocabulary.encode([e.prompt for e in episodes])
        wholes = vocabulary.encode([e.text for e in episodes])
        segments = []
        for episode, prompt, whole in zip(episodes, prompts, wholes, strict=True):
            if self.dense and episode.prompt_ids and episode.continuation_ids:
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
        from textgym.tokenization import load_vocabulary

        own = load_vocabulary(self.model)
        if own is not vocabulary and (own.size != vocabulary.size or own.tokenizer.get_vocab() != vocabulary.tokenizer.get_vocab()):
            raise textgym.InvalidArgumentError(
                f"log-prob with dense=True reads the policy's tokens, but those of {self.model!r} ({own.size}) are not those of "
                f"{vocabulary.model!r} ({vocabulary.size}): use dense=False, which reads the text"
            )
        return TokenLogProb(self._reference, n_rows, own.context_length)


class TokenLogProb:
    """The dense form of "log-prob": each prompt is read once, each token once, whatever the prefix's length."""

    def __init__(self, reference: "ReferenceModel", n_rows: int, context_length: int) -> None:
        import torch

        from textgym.lm.row_cache import RowCache

        self._lm, self._device, self._limit = reference.lm, reference.device, context_length
        self._cache = RowCache(n_rows, min(FIRST_WIDTH, context_length))
        self._newest = torch.zeros(n_rows, dtype=torch.long, device=reference.device)  # each row's last token
        self._column = torch.zeros(n_rows, dtype=torch.long, device=reference.device)  # and where it stands

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new texts in `rows`."""
        import torch

        lengths = [len(prompt) for prompt in prompts]
        self._reserve(max(lengths, default=1))
        which = torch.tensor(list(rows), dtype=torch.long, device=self._device)
        self._newest[which] = torch.tensor([prompt[-1] for prompt in prompts], dtype=torch.long, device=self._device)
        self._column[which] = torch.tensor(lengths, dtype=torch.long, device=self._device) - 1
        longest = max(lengths, default=1) - 1  # all but the last token, which the first step reads
        if longest:
            before = torch.tensor([[*prompt[:-1], *[0] * longest][:longest] for prompt in prompts], device=self._device)
            with torch.inference_mode():
                self._lm.prefill(self._cache, which, before)

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability of the newest token of each row, in nats."""
        import torch

        which, tokens = torch.tensor([list(rows), list(token_ids)], device=self._device)
        width = int(self._column.max()) + 1
        with torch.inference_mode():
            hidden = self._lm.decode(self._cache, self._newest, self._column, width)  # rows that are not asked read their last token again
            log_probs = self._lm.logits(hidden[which]).float().log_softmax(-1)
        self._reserve(width + 1)
        self._newest[which] = tokens
        self._column[which] += 1
        scores: list[float] = log_probs.gather(1, tokens[:, None]).squeeze(1).tolist()
        return scores

    def _reserve(self, width: int) -> None:
        """Make room for `width` tokens: at least doubled, so that the cache is copied only a few times."""
        have = self._cache.max_length
        if width > self._limit:
            raise textgym.InvalidArgumentError(f"log-prob: a text of {width} tokens exceeds the model's context of {self._limit}")
        if width > have:
            self._cache.widen(max(width, min(self._limit, 2 * have)))


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("log-prob", LogProb)
