"""Improbability: figures of how a frozen language model reads a text, by which word lists and searched suffixes differ from running text."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.lm.source import resolve_model
from textgym.tokenization import Vocabulary, load_vocabulary

if TYPE_CHECKING:
    from textgym.lm.language_model import LanguageModel

Array = NDArray[np.float64]
N_FIGURES = 12
BATCH = 16  # texts of similar length in a pass
LOGITS = 256  # tokens whose (tokens, vocab) logits are in memory at a time
SURPRISE = -8.0  # nats; a token less probable than that surprises
KEPT = 20_000  # texts whose figures are remembered


class Improbability:
    """How probable a text is to a frozen language model: as a whole, at its worst place, and beyond what its words' frequencies explain.

    A word's frequency in human texts is taken off its log-probability ("gain"): a list of frequent words is probable word by word, but
    gains nothing from its context.

    Args:
        model: Registered name, directory, `.gguf` file or hub id.
        frequency: Log-probability of every token by its frequency alone, (V,), in nats, as `counted` finds it.
        device: Where the model runs.
        dtype: Of its weights; in "bfloat16" a text's score may depend on the batch in the third digit.
    """

    def __init__(self, model: str, frequency: Array, device: str = "cpu", dtype: str = "float32") -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.frequency = np.asarray(frequency, np.float64)
        if self.frequency.shape != (self.vocabulary.size,):
            raise InvalidArgumentError(
                f"the guard counted {len(self.frequency)} tokens, but the language model {model!r} has {self.vocabulary.size}: harden again"
            )
        self._known: dict[str, Array] = {}

    @classmethod
    def counted(cls, model: str, texts: Sequence[str], device: str = "cpu", dtype: str = "float32") -> "Improbability":
        """Return the figures' reader with the token frequencies of `texts`, one added to every count."""
        vocabulary = load_vocabulary(model)
        counts = np.ones(vocabulary.size)
        for ids in vocabulary.encode(texts):
            np.add.at(counts, ids, 1)
        return cls(model, np.log(counts / counts.sum()), device, dtype)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the model."""
        return load_vocabulary(self.model)

    @cached_property
    def _lm(self) -> "LanguageModel":
        from textgym.lm.language_model import load_language_model

        return load_language_model(self.model, self.dtype, self.device).eval().requires_grad_(False)

    def of(self, texts: Sequence[str]) -> Array:
        """Return the figures of every text, (n, 12); texts are cut at the model's context length."""
        if len(self._known) > KEPT:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        found = dict(zip(new, (self._figures(*read) for read in self.log_probs(new)), strict=True))
        self._known |= found
        return np.stack([self._known[text] for text in texts]) if texts else np.zeros((0, N_FIGURES))

    def log_probs(self, texts: Sequence[str]) -> list[tuple[Array, Array]]:
        """Return, of each text, the log-probabilities of its tokens and of its end, (tokens + 1,) nats, and those by frequency, (tokens,)."""
        import torch
        from torch.nn.functional import cross_entropy

        from textgym.reward_modeling.scorers.features import batches_by_length, padded

        vocabulary = self.vocabulary
        end = min(vocabulary.eos_ids)
        first = vocabulary.tokenizer.bos_token_id
        start = end if first is None else int(first)
        bare = [ids[1:] if ids[0] == start else ids for ids in vocabulary.encode(texts)]
        bodies = [ids[: vocabulary.context_length - 1] for ids in bare]
        rows_of = [[start, *ids, end] for ids in bodies]
        found: list[tuple[Array, Array]] = [(np.zeros(1), np.zeros(0))] * len(bodies)
        with torch.inference_mode():
            for rows in batches_by_length([len(ids) for ids in rows_of], BATCH):
                input_ids, mask = padded([rows_of[row] for row in rows], vocabulary.pad_id, self.device)
                longest = max(len(rows_of[row]) for row in rows)
                # causal attention never looks right, so padding on the right needs no mask
                hidden = self._lm.trunk[0](input_ids=input_ids[:, : longest - 1], use_cache=False).last_hidden_state  # (n, L - 1, hidden)
                keep = mask[:, 1:longest].bool()
                pieces = zip(torch.split(hidden[keep], LOGITS), torch.split(input_ids[:, 1:longest][keep], LOGITS), strict=True)
                nats = torch.cat([cross_entropy(self._lm.logits(h).float(), chosen, reduction="none") for h, chosen in pieces])
                for row, part in zip(rows, torch.split(nats, keep.sum(1).tolist()), strict=True):
                    found[row] = -part.double().cpu().numpy(), self.frequency[bodies[row]]
        return found

    @staticmethod
    def _figures(log_probs: Array, by_frequency: Array) -> Array:
        """Return (12,): of log-probability and of gain the mean, its excess weighed by length, the worst four in a row, and so on."""
        end, tokens = float(log_probs[-1]), log_probs[:-1]
        n = len(tokens)
        if not n:
            return np.append(np.zeros(N_FIGURES - 1), end)
        gain = tokens - by_frequency
        fours, gains = _means_of_runs(tokens, 4), _means_of_runs(gain, 4)
        return np.array(
            [
                tokens.mean(),
                gain.mean(),
                tokens.mean() * np.sqrt(n),  # a low mean says more of a long text than of a short one
                gain.mean() * np.sqrt(n),
                fours.min(),
                fours.max(),
                gains.min(),
                _means_of_runs(tokens, 8).min(),
                tokens.std(),
                (tokens < SURPRISE).mean(),
                (gain < 0).mean(),
                end,
            ]
        )

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of the model's files, by its name."""
        from textgym.reward_modeling.reward_folder import folder_hash

        return {self.model: folder_hash(resolve_model(self.model))}

    def settings(self) -> dict[str, Any]:
        """Return what makes it anew beside the frequencies and the device, as plain data."""
        return {"model": self.model, "dtype": self.dtype}


def _means_of_runs(values: Array, size: int) -> Array:
    """Return the means of all runs of `size` neighbours; of a shorter array, its mean."""
    if len(values) <= size:
        return np.full(1, values.mean())
    total = np.cumsum(np.r_[0.0, values])
    return np.asarray((total[size:] - total[:-size]) / size)
