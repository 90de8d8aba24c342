"""The reward "cross-entropy": minus the cross-entropy of a reference text against the continuation, token by token."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import textgym
from textgym_plugins.reference_texts import reference_continuations

KEPT = 4096  # references whose probabilities are kept; they do not depend on the continuation


class CrossEntropy:
    """Minus the cross-entropy of the best reference against the continuation, in nats per token; at most 0.

    The continuation is read as a prediction of the reference r: at place t it says its own token c_t, and with probability λ leaves the
    word to a frozen language model that has read the reference so far. So the score is the mean over the reference's tokens, its end
    included, of

        log((1 - λ) [c_t = r_t] + λ p(r_t | prompt, r_<t)).

    It is highest for the reference itself, and a wrong token costs more the less it could be guessed. Tokens are compared place by place, as
    in the training loss of the same name: an inserted word puts all that follows out of place ("rouge" and "chrf" forgive that).

    Args:
        model: Name, directory, `.gguf` file or hub id of the language model; its tokenizer reads the texts, cut to its context.
        smoothing: λ, between 0 and 1.
        device: Where the model runs.
        dtype: Of its weights.

    Why not the probability of the reference after the continuation was read? With the bundled model, a copy of the reference scored
    higher by it than another review for 80 of 150 prompts only. A reference that begins with the prompt is compared without it.

    Source: teacher forcing with the label smoothing of Szegedy et al. (2016), arXiv:1512.00567, by a language model instead of evenly.
    """

    high = 0.0
    needs_references = True
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, model: str = "reviews", smoothing: float = 0.1, device: str = "cpu", dtype: str = "float32") -> None:
        if not 0 < smoothing < 1:
            raise textgym.InvalidArgumentError(f"cross-entropy: smoothing must be between 0 and 1, got {smoothing!r}")
        from textgym.policies.reference import ReferenceModel
        from textgym.tokenization import load_vocabulary

        self._settings = (model, smoothing, device, dtype)
        self.smoothing = smoothing
        self._vocabulary = load_vocabulary(model)
        self._reference = ReferenceModel(model, device, dtype)
        self._probabilities = lru_cache(KEPT)(self._read)

    def __reduce__(self) -> tuple[type["CrossEntropy"], tuple[str, float, str, str]]:
        return CrossEntropy, self._settings  # a copy in another process reads the model itself

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return minus the cross-entropies, (n,), in nats per token."""
        return [max(self._score(e, text) for text in reference_continuations(e, "cross-entropy")) for e in episodes]

    def _score(self, episode: textgym.Episode, reference: str) -> float:
        prefix, wanted = self._split(episode.prompt, reference)
        _, given = self._split(episode.prompt, episode.continuation)
        guessed = self._probabilities(prefix, wanted)
        agrees = np.array([i < len(given) and given[i] == token for i, token in enumerate(wanted)])
        return float(np.log((1 - self.smoothing) * agrees + self.smoothing * guessed).mean())

    def _split(self, prompt: str, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the token ids of the prompt, and of `text` after it with the end-of-text token."""
        start, whole = self._vocabulary.encode([prompt, prompt + text])
        n = min(len(start), len(whole))
        return tuple(whole[:n]), (*whole[n:], min(self._vocabulary.eos_ids))

    def _read(self, prefix: tuple[int, ...], wanted: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the probability of each wanted token after the prefix and those before it, (tokens,); 0 < p <= 1."""
        from textgym.lm.token_distribution import SamplingRule

        limit = self._vocabulary.context_length
        prefix = prefix[-(limit - 1) :][-max(1, limit - len(wanted)) :]
        read = np.array(wanted[: limit - len(prefix)], np.int64)
        log_probs = self._reference.log_probs([(np.array(prefix, np.int64), read)], SamplingRule(), None).astype(np.float64)
        beyond = np.full(len(wanted) - len(read), -np.log(self._vocabulary.size))  # not read: any token is as good as another
        probabilities: NDArray[np.float64] = np.exp(np.concatenate([log_probs, beyond]).clip(min=-100.0))
        return probabilities


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "cross-entropy"."""
    register("cross-entropy", CrossEntropy)
