"""The reward "rouge": how much of a reference text the continuation has in common with it, by ROUGE."""

import re
from collections.abc import Sequence
from typing import Any

import textgym
from textgym_plugins.reference_texts import reference_continuations

VARIANT = re.compile(r"rouge([1-9]|L|Lsum)")
LONGEST = 20_000  # characters; the rest of a text is not read, since ROUGE-L takes time in the product of both lengths


class Rouge:
    """ROUGE F-measure of the continuation against its best reference; 0 (nothing in common) .. 1 (the same words).

    `variant` is "rougeL" (longest common subsequence), "rougeLsum" (the same by lines) or "rouge1" .. "rouge9" (n-grams); `stemmer=True`
    compares Porter stems. A reference that begins with the prompt is compared without it. Only the letters a-z and digits count, so that
    a text in another script scores 0: take "chrf" for it. Of each text the first 20,000 characters are read.

    Source: Lin (2004), "ROUGE: A Package for Automatic Evaluation of Summaries"; computed by Google's rouge-score.
    """

    low, high = 0.0, 1.0
    needs_references = True
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, variant: str = "rougeL", stemmer: bool = False) -> None:
        if not VARIANT.fullmatch(variant):
            raise textgym.InvalidArgumentError(f'rouge: variant must be "rougeL", "rougeLsum" or "rouge1" to "rouge9", got {variant!r}')
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise textgym.MissingExtraError('the reward "rouge"', "references") from None
        self.variant = variant
        self._scorer = RougeScorer([variant], use_stemmer=stemmer)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the F-measures, (n,), in 0..1."""
        return [max(self._f_measure(e.continuation, r) for r in reference_continuations(e, "rouge")) for e in episodes]

    def _f_measure(self, text: str, reference: str) -> float:
        return float(self._scorer.score(reference[:LONGEST], text[:LONGEST])[self.variant].fmeasure)


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "rouge"."""
    register("rouge", Rouge)
