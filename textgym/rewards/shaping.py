"""Shaping: a potential Φ paid out along the way, γΦ(s') - Φ(s), which leaves the optimal policy what it was."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.rewards.composition import finite
from textgym.rewards.declaration import declaration_of
from textgym.rewards.protocol import Array, RewardSpec, TokenScorer
from textgym.rewards.reward import Reward, make_reward
from textgym.rewards.session import scorer_of
from textgym.tokenization import Vocabulary


class Shaping:
    """Potential-based shaping: every token is paid γΦ(s') - Φ(s), where Φ is another reward's score of the prefix so far.

    Φ of the end is 0, so the discounted sum over an episode is -Φ(prompt), whatever is written: adding this term changes how fast a policy
    is found and not which one is best, if `gamma` is the learner's own discount.

    Args:
        potential: What `textgym.make_reward` takes, one term. If it can pay token by token, its running sum is Φ (and Φ(prompt) is 0) and a
            token costs the same whatever the prefix; else it scores the unfinished text anew at every token.
        gamma: Discount factor of the learner, 0 < γ ≤ 1.

    References:
        Ng, Harada and Russell 1999, "Policy invariance under reward transformations", ICML; Φ(end) = 0: Grześ 2017, AAMAS.
    """

    only_along_the_way = True  # of a whole episode, nothing is left of it that depends on what was written

    def __init__(self, potential: "RewardSpec | Reward", gamma: float = 1.0) -> None:
        self.potential, self.gamma = make_reward(potential), finite("shaping: gamma", gamma)
        if not 0 < self.gamma <= 1:
            raise InvalidArgumentError(f"shaping: gamma must be above 0 and at most 1, got {gamma!r}")
        if len(self.potential.terms) != 1:
            raise InvalidArgumentError(
                f"shaping: the potential must be a single reward, got {self.potential.name!r}: add one shaping per term"
            )

        declared = declaration_of(self.potential.terms[0].model)
        if declared.needs_references:
            raise InvalidArgumentError(f"shaping: {self.potential.name!r} needs reference texts, which an unfinished text has none of")
        if not declared.deterministic:
            raise InvalidArgumentError(f"shaping: {self.potential.name!r} is not deterministic; a potential is a function of the text")

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the discounted sum over each whole episode, -Φ(prompt), (n,): 0 for a potential that pays token by token."""
        (term,) = self.potential.terms
        if hasattr(term.model, "token_scorer") and getattr(term.model, "dense", True):
            return np.zeros(len(episodes))
        return -self.potential.score([Episode(e.prompt, references=e.references, metadata=e.metadata) for e in episodes])

    def identity(self) -> str:
        """Return what the scores depend on beside the episodes."""
        return f"Shaping {self.gamma} [{self.potential.identity()}]"

    def token_scorer(self, n_rows: int, vocabulary: Vocabulary) -> TokenScorer:
        """Return the dense form."""
        (term,) = self.potential.terms
        inner = scorer_of(term.model, n_rows, vocabulary)
        if inner is not None:
            return _SummedPotential(inner, n_rows, self.gamma, term.weight)
        return _TextPotential(self.potential, n_rows, self.gamma, vocabulary)


class _Potential:
    """Φ of each row before the newest token, and what follows from it."""

    def __init__(self, n_rows: int, gamma: float) -> None:
        self.before, self.gamma = np.zeros(n_rows), gamma

    def pay(self, rows: Sequence[int], after: Array) -> Array:
        paid: Array = self.gamma * after - self.before[list(rows)]
        self.before[list(rows)] = after
        return paid

    def finish(self, rows: Sequence[int]) -> Array:
        """Take back γΦ(s') of the last step: the end has the potential 0."""
        taken: Array = -self.gamma * self.before[list(rows)]
        return taken


class _SummedPotential(_Potential):
    def __init__(self, inner: TokenScorer, n_rows: int, gamma: float, weight: float) -> None:
        super().__init__(n_rows, gamma)
        self.inner, self.weight = inner, weight

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        self.inner.start(rows, prompts)
        self.before[list(rows)] = 0.0

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Array:
        paid = np.asarray(self.inner.step(rows, token_ids), np.float64)
        return self.pay(rows, self.before[list(rows)] + self.weight * paid)


class _TextPotential(_Potential):
    def __init__(self, potential: Reward, n_rows: int, gamma: float, vocabulary: Vocabulary) -> None:
        super().__init__(n_rows, gamma)
        self.potential, self.vocabulary = potential, vocabulary
        self.prompts: list[list[int]] = [[] for _ in range(n_rows)]
        self.tokens: list[list[int]] = [[] for _ in range(n_rows)]

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        for row, prompt in zip(rows, prompts, strict=True):
            self.prompts[row], self.tokens[row] = list(prompt), []
        self.before[list(rows)] = self.values(rows)

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Array:
        for row, token in zip(rows, token_ids, strict=True):
            self.tokens[row].append(token)
        return self.pay(rows, self.values(rows))

    def values(self, rows: Sequence[int]) -> Array:
        prompts, tokens = [self.prompts[r] for r in rows], [self.tokens[r] for r in rows]
        texts = self.vocabulary.decode_continuations(prompts, tokens)
        before: list[Any] = self.vocabulary.decode(prompts)
        return self.potential.score([Episode(p, t, tuple(i), tuple(c)) for p, t, i, c in zip(before, texts, prompts, tokens, strict=True)])
