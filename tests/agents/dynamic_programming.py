"""Exact optimal values of TokenChain by dynamic programming over all prefixes."""

from itertools import product

import numpy as np
from scipy.special import logsumexp
from textgym_plugins.token_chain import HORIZON, SYMBOLS, mean_reward

TOKENS = (*SYMBOLS, "<eos>")


def optimal_values(alpha: float) -> dict[tuple[str, ...], dict[str, float]]:
    """Return prefix (prompt of two, continuation) → token → Q*; hard for alpha = 0, else the optimum of reward plus alpha times entropy."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for length in range(HORIZON - 1, -1, -1):
        for prefix in product(SYMBOLS, repeat=2 + length):
            q = {"<eos>": mean_reward(prefix[:2], prefix[2:])}
            for symbol in SYMBOLS:
                after = (*prefix, symbol)
                q[symbol] = mean_reward(after[:2], after[2:]) if length == HORIZON - 1 else value(found[after], alpha)
            found[prefix] = q
    return found


def value(q: dict[str, float], alpha: float) -> float:
    """Return V of the Q of a prefix: its maximum, or alpha · log Σ exp(Q / alpha)."""
    numbers = np.array(list(q.values()))
    return float(numbers.max()) if alpha == 0 else float(alpha * logsumexp(numbers / alpha))
