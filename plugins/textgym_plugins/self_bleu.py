"""The reward "self-bleu": how alike the sentences of a continuation are, to be used with a negative weight."""

import re
from collections.abc import Sequence
from typing import Any

import textgym

SENTENCE_END = re.compile(r"(?<=[.!?…。！？])\s*|\n+")
MARKS = " \t\r\n.!?…。！？"  # at a sentence's end, where nearly all sentences agree
MOST = 24  # sentences; each is compared with all the others


class SelfBleu:
    """Mean BLEU of each sentence of the continuation against its other sentences; 0 (nothing in common) .. 1 (all the same).

    Fewer than two sentences have nothing to compare and score 0; so repetition inside one sentence goes unseen ("repetition" sees it).
    Sentences end at full stops, exclamation and question marks and at line breaks, which are not
    compared; the first 24 are read.

    Source: Zhu et al. (2018), "Texygen: A Benchmarking Platform for Text Generation Models", arXiv:1802.01886; there between the texts of a
    system, here inside one text, since a reward does not depend on the other episodes of its batch. Computed by sacreBLEU.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, max_order: int = 4) -> None:
        if max_order < 1:
            raise textgym.InvalidArgumentError(f"self-bleu: max_order must be at least 1, got {max_order}")
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ImportError:
            raise textgym.MissingExtraError('the reward "self-bleu"', "references") from None
        self._metric = BLEU(lowercase=True, max_ngram_order=max_order, effective_order=True)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the mean BLEU between sentences, (n,), in 0..1."""
        return [self._between(episode.continuation) for episode in episodes]

    def _between(self, text: str) -> float:
        sentences = [s.strip(MARKS) for s in SENTENCE_END.split(text) if any(c.isalnum() for c in s)][:MOST]
        if len(sentences) < 2:
            return 0.0
        each = [self._metric.sentence_score(s, sentences[:i] + sentences[i + 1 :]).score / 100 for i, s in enumerate(sentences)]
        return min(1.0, sum(each) / len(each))


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "self-bleu"."""
    register("self-bleu", SelfBleu)
