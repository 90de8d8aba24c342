"""Doubts: what in an agent's texts makes its scores less believable than their intervals are."""

import math
from collections.abc import Sequence

from textgym.experiments.compare import CONTROL, Row

STRANGE = 5.0  # times the perplexity of the untrained model's own texts
ALIKE = 0.5  # of their distinct-2


def doubts(rows: Sequence[Row]) -> dict[str, str]:
    """Return what speaks against the scores of agents, by agent: texts that the language model finds strange, or that are much alike.

    A learnt score judges such texts unlike any that it was fitted on, and so does an independent one: both may be fooled alike.
    Tasks whose network knows no language (perplexity NaN) leave no doubts.
    """
    control = next(row for row in rows if row.agent == CONTROL).figures
    found: dict[str, str] = {}
    for row in rows:
        reasons = []
        if row.figures["perplexity"] > STRANGE * control["perplexity"]:
            reasons.append(f"perplexity {row.figures['perplexity']:,.0f}, {CONTROL} {control['perplexity']:,.0f}")
        if math.isfinite(control["perplexity"]) and row.figures["distinct_2"] < ALIKE * control["distinct_2"]:
            reasons.append(f"distinct-2 {row.figures['distinct_2']:.2f}, {CONTROL} {control['distinct_2']:.2f}")
        if reasons:
            found[row.agent] = "; ".join(reasons)
    return found
