"""Rewards made of rewards: clipped, scaled, normalised, ensembles, and a floor for empty texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.rewards.combination import Combination, check_combination, combine, combined_range
from textgym.rewards.declaration import declaration_of
from textgym.rewards.protocol import Array, RewardSpec
from textgym.rewards.reward import Reward, make_reward
from textgym.rewards.term import add_inner


class Composite:
    """A reward model around others. Subclasses say what becomes of their scores; identity, range and state are theirs together.

    Args:
        *inside: What `textgym.make_reward` takes, each.

    Attributes:
        learns: Whether equal episodes get different scores as training goes on ("normalize" is inside).
    """

    def __init__(self, *inside: "RewardSpec | Reward") -> None:
        self.inside = tuple(make_reward(spec) for spec in inside)
        for term in (term for reward in self.inside for term in reward.terms):
            if getattr(term.model, "only_along_the_way", False):
                raise InvalidArgumentError(
                    f"{term.name} pays along the way, and what is around it pays at the end, when nothing is left of that: add it outside"
                )
        declared = [declaration_of(term.model) for reward in self.inside for term in reward.terms]
        self.deterministic = all(d.deterministic for d in declared)
        self.needs_references = any(d.needs_references for d in declared)
        self.reads_tokens = any(d.reads_tokens for d in declared)
        self.min_texts_per_second = min((d.min_texts_per_second for d in declared), default=0.0)
        self.learns = any(getattr(term.model, "learns", False) for reward in self.inside for term in reward.terms)

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores, (n,), and the scores inside by name."""
        raise NotImplementedError

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the scores, (n,)."""
        return self.score_terms(episodes)[0]

    def inner_terms(self, episodes: Sequence[Episode], learning: bool) -> tuple[list[Array], dict[str, Array]]:
        """Return the scores of each reward inside, and all values by name."""
        scores, values = [], dict[str, Array]()
        for reward in self.inside:
            score, inner = reward.score_terms(episodes, learning)
            scores.append(score)
            add_inner(values, reward.name, inner)
        return scores, values

    def settings(self) -> Mapping[str, Any]:
        """Return the numbers that the scores depend on, for the identity."""
        return {name: value for name, value in vars(self).items() if isinstance(value, (int, float, str))}

    def identity(self) -> str:
        """Return what the scores depend on beside the episodes."""
        return f"{type(self).__name__} {dict(self.settings())} [{', '.join(r.identity() for r in self.inside)}]"

    def state(self) -> dict[str, Any]:
        """Return what was learnt in training, as plain data."""
        return {"inside": [reward.state() for reward in self.inside]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for reward, inner in zip(self.inside, state["inside"], strict=True):
            reward.load_state(inner)


class Clip(Composite):
    """A reward kept between `low` and `high`. Paid at the end of the episode, since a sum of clipped tokens is no clipped sum."""

    def __init__(self, reward: "RewardSpec | Reward", low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(reward)
        self.low, self.high = finite("clip: low", low), finite("clip: high", high)
        if not self.low < self.high:
            raise InvalidArgumentError(f"clip: low must be below high, got {low!r} and {high!r}")

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the clipped scores and the raw ones by name."""
        (scores,), values = self.inner_terms(episodes, learning)
        return np.clip(scores, self.low, self.high), values


class Scale(Composite):
    """(reward - shift) · factor, with fixed numbers: puts a reward of known range onto another."""

    def __init__(self, reward: "RewardSpec | Reward", factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(reward)
        self.factor, self.shift = finite("scale: factor", factor), finite("scale: shift", shift)
        if self.factor == 0:
            raise InvalidArgumentError("scale: factor must not be 0")
        ends = [(end - self.shift) * self.factor for end in range_of(self.inside[0])]
        self.low, self.high = min(ends), max(ends)

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scaled scores and the raw ones by name."""
        (scores,), values = self.inner_terms(episodes, learning)
        return (scores - self.shift) * self.factor, values


class Normalize(Composite):
    """A reward less its running mean, over its running standard deviation, kept within ±`limit`.

    The statistics move in training only: evaluation and direct scoring use them as they are, so the scores of a call never depend on its
    own batch. A training batch first moves them (Welford 1962, in Chan's form for batches), then is scored. Before the first training
    batch, scores are only kept within ±`limit`. They are part of a run's state and survive a resume.
    """

    def __init__(self, reward: "RewardSpec | Reward", limit: float = 10.0) -> None:
        super().__init__(reward)
        self.limit = finite("normalize: limit", limit)
        if not self.limit > 0:
            raise InvalidArgumentError(f"normalize: limit must be above 0, got {limit!r}")
        self.learns = True
        self.low, self.high = -self.limit, self.limit
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the normalised scores and the raw ones by name."""
        (scores,), values = self.inner_terms(episodes, learning)
        if learning:
            self._learn(scores[np.isfinite(scores)])
        deviation = float(np.sqrt(self.squares / self.count)) if self.count > 1 else 1.0
        return np.clip((scores - self.mean) / (deviation or 1.0), -self.limit, self.limit), values

    def _learn(self, scores: Array) -> None:
        if scores.size:
            total, mean = self.count + scores.size, float(scores.mean())
            distance = mean - self.mean
            self.squares += float(((scores - mean) ** 2).sum()) + distance**2 * self.count * scores.size / total
            self.mean += distance * scores.size / total
            self.count = total

    def settings(self) -> Mapping[str, Any]:
        """Return the limit, and the statistics as they are now."""
        return {"limit": self.limit, "count": self.count, "mean": self.mean, "squares": self.squares}

    def state(self) -> dict[str, Any]:
        """Return the statistics with the state inside."""
        return {**super().state(), "count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().load_state(state)
        self.count, self.mean, self.squares = int(state["count"]), float(state["mean"]), float(state["squares"])


class Ensemble(Composite):
    """Several rewards of the same thing as one, by `textgym.rewards.combination.combine`: "mean", "min", "mean-std", "uncertainty-weighted".

    Every member's score is logged by its name, and their standard deviation as "disagreement".
    """

    uncertainty_kind = "disagreement of the members"

    def __init__(self, *rewards: "RewardSpec | Reward", how: Combination = "mean", penalty: float = 1.0) -> None:
        if len(rewards) < 2:
            raise InvalidArgumentError(f"ensemble: needs at least two rewards, got {len(rewards)}")
        check_combination(how)
        super().__init__(*rewards)
        names = [reward.name for reward in self.inside]
        if len(set(names)) < len(names):
            raise InvalidArgumentError(f"ensemble: the members' names must differ, got {', '.join(names)}")
        self.how, self.penalty = how, finite("ensemble: penalty", penalty)
        if self.penalty < 0:
            raise InvalidArgumentError(f"ensemble: penalty must be at least 0, got {penalty!r}")
        ranges = [range_of(reward) for reward in self.inside]
        self.low, self.high = combined_range(min(low for low, _ in ranges), max(high for _, high in ranges), how, self.penalty)

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the combined scores; by name every member's, and "disagreement"."""
        scores, values = self.inner_terms(episodes, learning)
        members = np.stack(scores)
        for reward, score in zip(self.inside, scores, strict=True):
            values.setdefault(reward.name, score)  # a member that is a sum has no value of that name yet
        values["disagreement"] = members.std(0)
        return combine(members, self.how, self.penalty), values

    def uncertainty(self, episodes: Sequence[Episode]) -> Array:
        """Return the standard deviation of the members' scores, (n,)."""
        return self.score_terms(episodes)[1]["disagreement"]


class NonEmpty(Composite):
    """A reward for texts that say something; a continuation of white space alone gets `value` and is not shown to the reward at all."""

    def __init__(self, reward: "RewardSpec | Reward", value: float = -1.0) -> None:
        super().__init__(reward)
        self.value = finite("non-empty: value", value)
        low, high = range_of(self.inside[0])
        self.low, self.high = min(low, self.value), max(high, self.value)

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores; the values inside are those of the texts that were scored and `value` elsewhere."""
        full = np.array([bool(e.continuation.strip()) for e in episodes], np.bool_)
        (scores,), values = self.inner_terms([e for e, keep in zip(episodes, full, strict=True) if keep], learning)

        def spread(inner: Array) -> Array:
            whole = np.full(len(episodes), self.value)
            whole[full] = inner
            return whole

        return spread(scores), {name: spread(inner) for name, inner in values.items()}


class LengthPenalty:
    """Minus `per_token` for every token of the continuation beyond `free` ones; words where only the text is known. At most 0."""

    high = 0.0
    reads_tokens = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, per_token: float = 0.01, free: int = 0) -> None:
        self.per_token = finite("length-penalty: per_token", per_token)
        if not self.per_token > 0:
            raise InvalidArgumentError(f"length-penalty: per_token must be above 0, got {per_token!r}")
        if isinstance(free, bool) or not isinstance(free, int) or free < 0:
            raise InvalidArgumentError(f"length-penalty: free must be an integer of at least 0, got {free!r}")
        self.free = free

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the penalties, (n,)."""
        lengths = [len(e.continuation_ids) or len(e.continuation.split()) for e in episodes]
        return [-self.per_token * (length - self.free) if length > self.free else 0.0 for length in lengths]


def range_of(reward: Reward) -> tuple[float, float]:
    """Return the range that a weighted sum of declared ranges has."""
    low = high = 0.0
    for term in reward.terms:
        if term.weight:
            declared = declaration_of(term.model)
            ends = (term.weight * declared.low, term.weight * declared.high)
            low, high = low + min(ends), high + max(ends)
    return (low, high) if low < high else (-np.inf, np.inf)  # nothing but weights of 0


def finite(what: str, value: Any) -> float:
    """Return a setting as a float; raise `InvalidArgumentError` unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise InvalidArgumentError(f"{what} must be a finite number, got {value!r}")
    return float(value)
