"""Exact optimal values of TokenChain by dynamic programming over all prefixes, and an agent's values of the same prefixes."""

from itertools import product

import numpy as np
import torch
from scipy.special import logsumexp
from textgym_plugins.token_chain import HORIZON, SYMBOLS, mean_reward

from textgym.learning.micro_batches import micro_batches
from textgym.policies.generation import GeneratedText

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


def expectile(numbers: np.ndarray, weights: np.ndarray, tau: float) -> float:
    """Return the v with Σ w |τ − 1(q < v)| (q − v) = 0."""
    v = float(np.average(numbers, weights=weights))
    for _ in range(200):  # iteratively reweighted mean
        v = float(np.average(numbers, weights=weights * np.where(numbers < v, 1 - tau, tau)))
    return v


def values_in_data(texts: list[tuple[tuple[str, ...], tuple[str, ...], float]], tau: float) -> dict[tuple[str, ...], dict[str, float]]:
    """Return prefix → token → the exact Q of implicit Q-learning, for the prefixes and tokens that the data have.

    Q(s, a) is the mean reward where the text ends with a, else V(s a); V(s) the τ-expectile of Q(s, ·) over the data's tokens.

    Args:
        texts: Prompt, tokens (an end token included), reward.
        tau: 0.5 for the value of whoever wrote the data; towards 1 for the best that the data show.
    """
    rewards: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for prompt, tokens, reward in texts:
        for t, token in enumerate(tokens):
            rewards.setdefault((*prompt, *tokens[:t]), {}).setdefault(token, []).append(reward)
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for prefix in sorted(rewards, key=len, reverse=True):
        found[prefix] = {}
        for token, seen in rewards[prefix].items():
            after = found.get((*prefix, token))
            if after is None:
                found[prefix][token] = float(np.mean(seen))
            else:
                counts = np.array([len(rewards[(*prefix, token)][next_token]) for next_token in after], float)
                found[prefix][token] = expectile(np.array(list(after.values())), counts, tau)
    return found


def one_token_texts(agent, optimum):
    """Return a text of one token per (prefix, token), in the order of `optimum`, and the list of these keys."""
    keys = [(prefix, token) for prefix, q in optimum.items() for token in q]

    def ids(words):
        return np.array(agent.env.mdp.vocabulary.tokenizer.convert_tokens_to_ids(list(words)), np.int64)

    return [GeneratedText(ids(p), ids([t]), np.zeros(1, np.float32), np.zeros(1), {}) for p, t in keys], keys


def learnt_q(agent, optimum):
    """Return (prefix, token) → the agent's Q: V + A of an agent whose policy is Q, the lesser of twin critics."""
    texts, keys = one_token_texts(agent, optimum)
    (batch,) = micro_batches(texts, 10**6, agent.device)
    with torch.no_grad():
        if hasattr(agent, "q_of_tokens"):
            q = sum(agent.q_of_tokens(batch))
        else:
            hidden, _ = agent.hidden_and_logits(agent.policy, batch)
            q = agent.policy.least_q(agent.policy.read(hidden)).gather(-1, batch.packed.actions[:, None]).squeeze(-1)
    return dict(zip(keys, q.tolist(), strict=True))
