"""The reward "chrf": how alike the character n-grams of the continuation and of a reference are, by chrF."""

from collections.abc import Sequence
from typing import Any

import textgym
from textgym_plugins.reference_texts import reference_continuations


class Chrf:
    """Sentence chrF of the continuation against its best reference; 0 .. 1 (sacreBLEU's number is a hundred times this one).

    F-beta (`beta` = 2: recall counts more) of character n-grams up to six, white space left out; `word_order=2` adds words and pairs of
    words (chrF++). It works for every script and rewards a word that is nearly right. A reference that begins with the prompt is compared
    without it.

    Source: Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation"; computed by sacreBLEU.
    """

    low, high = 0.0, 1.0
    needs_references = True
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, word_order: int = 0, beta: int = 2, lowercase: bool = False) -> None:
        if word_order < 0 or beta < 1:
            raise textgym.InvalidArgumentError(f"chrf: word_order must be at least 0 and beta at least 1, got {word_order} and {beta}")
        try:
            from sacrebleu.metrics.chrf import CHRF
        except ImportError:
            raise textgym.MissingExtraError('the reward "chrf"', "references") from None
        self._metric = CHRF(word_order=word_order, beta=beta, lowercase=lowercase)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the sentence chrF scores, (n,), in 0..1."""
        pairs = [(e.continuation, reference_continuations(e, "chrf")) for e in episodes]
        return [min(1.0, self._metric.sentence_score(text, references).score / 100) for text, references in pairs]


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "chrf"."""
    register("chrf", Chrf)
