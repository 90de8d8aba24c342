"""The reward "bleu": which share of the continuation's n-grams its references have, by BLEU."""

from collections.abc import Sequence
from typing import Any

import textgym
from textgym_plugins.reference_texts import reference_continuations


class Bleu:
    """Sentence BLEU of the continuation against all its references; 0 .. 1 (sacreBLEU's number is a hundred times this one).

    The geometric mean of the precisions of n-grams up to `max_order` that the continuation is long enough for ("effective order",
    exponential smoothing), times the brevity penalty. `lowercase=True` ignores case; `tokenize` is one of sacreBLEU's tokenizers that
    need no download. A reference that begins with the prompt is compared without it.

    Source: Papineni et al. (2002), "BLEU: a Method for Automatic Evaluation of Machine Translation"; computed by sacreBLEU (Post 2018,
    arXiv:1804.08771).
    """

    low, high = 0.0, 1.0
    needs_references = True
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, max_order: int = 4, lowercase: bool = False, tokenize: str = "13a") -> None:
        if max_order < 1:
            raise textgym.InvalidArgumentError(f"bleu: max_order must be at least 1, got {max_order}")
        if tokenize not in ("13a", "char", "intl", "none", "zh"):
            raise textgym.InvalidArgumentError(f'bleu: tokenize must be "13a", "char", "intl", "none" or "zh", got {tokenize!r}')
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ImportError:
            raise textgym.MissingExtraError('the reward "bleu"', "references") from None
        self._metric = BLEU(lowercase=lowercase, tokenize=tokenize, max_ngram_order=max_order, effective_order=True)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the sentence BLEU scores, (n,), in 0..1."""
        pairs = [(e.continuation, reference_continuations(e, "bleu")) for e in episodes]
        return [min(1.0, self._metric.sentence_score(text, references).score / 100) for text, references in pairs]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "bleu"."""
    register("bleu", Bleu)
