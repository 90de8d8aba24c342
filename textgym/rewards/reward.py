"""Reward: named terms with weights, every score checked at the border before anything else sees it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, RewardError, UnknownNameError, one_line
from textgym.plugin_manager import check_options, installed_plugins
from textgym.rewards.protocol import RewardModel, RewardSpec, Scores, TokenRewardModel, TokenScorer
from textgym.tokenization import Vocabulary

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RewardTerm:
    """One reward model with its name in the logs, its weight, and the plugin it comes from ("" for an object from the user's code)."""

    name: str
    model: RewardModel
    weight: float = 1.0
    origin: str = ""

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the unweighted, checked scores, (n,) float64."""
        try:
            raw = self.model.score(list(episodes))
        except Exception as error:
            raise RewardError(f"{self} raised {one_line(error)} - on {_culprit(self.model, episodes)}") from error
        return self.checked(raw, episodes)

    def checked(self, raw: Scores, episodes: Sequence[Episode]) -> Array:
        """Return `raw` as (n,) float64; raise `RewardError` naming plugin, episode and text unless it is n finite numbers."""
        if hasattr(raw, "detach"):  # a torch tensor, on whatever device
            raw = raw.detach().cpu()
            raw = (raw.double() if raw.is_floating_point() else raw).numpy()  # NumPy has no bfloat16
        try:
            scores = np.asarray(raw)
        except ValueError:
            scores = np.empty(0, object)
        if scores.dtype.kind not in "fiub":
            raise RewardError(f"{self} must return numbers, got {_shown(raw)}")
        if scores.shape != (len(episodes),):
            raise RewardError(f"{self} must return {len(episodes)} scores for {len(episodes)} episodes, got shape {scores.shape}")
        bad = np.flatnonzero(~np.isfinite(scores))
        if bad.size:
            raise RewardError(f"{self} returned {scores[bad[0]]} for episode {bad[0]} of {len(episodes)}: {_shown(episodes[bad[0]].text)}")
        return scores.astype(np.float64)

    def __str__(self) -> str:
        return f"reward {self.name!r}" + (f" of plugin {self.origin}" if self.origin else "")


@dataclass(frozen=True)
class Reward:
    """A weighted sum of reward terms; with one term of weight 1, that term itself."""

    terms: tuple[RewardTerm, ...]

    @property
    def name(self) -> str:
        """The reward as text: "human-rating", or "1*human-rating - 0.5*repetition"."""
        if len(self.terms) == 1 and self.terms[0].weight == 1.0:
            return self.terms[0].name
        text = " ".join(f"{'-' if t.weight < 0 else '+'} {abs(t.weight):g}*{t.name}" for t in self.terms)
        return text.removeprefix("+ ")

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the reward of each finished episode, (n,) float64."""
        return self.score_terms(episodes)[0]

    def score_terms(self, episodes: Sequence[Episode]) -> tuple[Array, dict[str, Array]]:
        """Return the rewards, (n,), and the unweighted score of each term by name, (n,) each."""
        scores = {term.name: term.score(episodes) for term in self.terms}
        total = np.zeros(len(episodes))
        for term in self.terms:
            total += term.weight * scores[term.name]
        return total, scores

    def session(self, n_rows: int, vocabulary: Vocabulary) -> "RewardSession":
        """Return the state of this reward over `n_rows` running episodes."""
        return RewardSession(self, n_rows, vocabulary)


class RewardSession:
    """A reward at work in an environment: dense terms are paid token by token and summed up, the others at the end."""

    def __init__(self, reward: Reward, n_rows: int, vocabulary: Vocabulary) -> None:
        self.reward = reward
        self.scorers: dict[str, TokenScorer] = {}
        for term in reward.terms:
            if isinstance(term.model, TokenRewardModel):
                scorer = term.model.token_scorer(n_rows, vocabulary)
                if scorer is not None:
                    self.scorers[term.name] = scorer
        self._sums = {name: np.zeros(n_rows) for name in self.scorers}
        self._vocabulary = vocabulary

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new episodes in `rows`."""
        for name, scorer in self.scorers.items():
            scorer.start(rows, prompts)
            self._sums[name][list(rows)] = 0.0

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> Array:
        """Return the weighted dense reward of the newest token of each row, (len(rows),)."""
        total = np.zeros(len(rows))
        for term in self.reward.terms:
            if term.name in self.scorers:
                tokens = [Episode("", self._vocabulary.decode([[i]])[0]) for i in token_ids]
                try:
                    raw = self.scorers[term.name].step(rows, token_ids)
                except Exception as error:
                    raise RewardError(f"{term} raised {one_line(error)} - on the tokens {_shown([t.text for t in tokens])}") from error
                scores = term.checked(raw, tokens)
                self._sums[term.name][list(rows)] += scores
                total += term.weight * scores
        return total

    def finish(self, rows: Sequence[int], episodes: Sequence[Episode]) -> tuple[Array, dict[str, Array]]:
        """Return what the terms paid at the end add, (len(rows),), and the episode's value of every term by name."""
        total, values = np.zeros(len(rows)), {}
        for term in self.reward.terms:
            if term.name in self.scorers:
                values[term.name] = self._sums[term.name][list(rows)].copy()
            else:
                values[term.name] = term.score(episodes)
                total += term.weight * values[term.name]
        return total, values


def make_reward(spec: "RewardSpec | Reward", **options: Any) -> Reward:
    """Build a reward.

    Args:
        spec: A registered name; a callable `episodes -> scores`; an object (or class) with `score`; or a mapping of registered names to
            weights.
        **options: Settings of the registered reward (or of the class).

    Returns:
        The reward; its `score(episodes)` returns (n,) float64.

    Raises:
        UnknownNameError: No plugin registered the name.
        InvalidArgumentError: The options do not fit, or `spec` is none of the above.
    """
    if isinstance(spec, Reward):
        return spec
    if isinstance(spec, Mapping):
        if options:
            raise InvalidArgumentError(
                f"options {sorted(options)} fit one named reward, not a weighted sum; build the terms' options into plugins"
            )
        if not spec:
            raise InvalidArgumentError("a weighted sum of rewards needs at least one name")
        terms = []
        for name, weight in spec.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not np.isfinite(weight):
                raise InvalidArgumentError(f"the weight of reward {name!r} must be a finite number, got {weight!r}")
            terms.append(_named_term(name, {}, float(weight)))
        return Reward(tuple(terms))
    if isinstance(spec, str):
        return Reward((_named_term(spec, options, 1.0),))
    if isinstance(spec, type):
        if options:
            check_options(f"reward {spec.__name__!r}", spec, options)
        spec = spec(**options)
    elif options:
        raise InvalidArgumentError(f"options {sorted(options)} fit a reward given by name or class, not {spec!r}")
    return Reward((RewardTerm(_name_of(spec), _as_model(spec)),))


def _named_term(name: str, options: Mapping[str, Any], weight: float) -> RewardTerm:
    if not isinstance(name, str):
        raise UnknownNameError("reward", str(name), installed_plugins().registrations("reward"))
    plugins = installed_plugins()
    return RewardTerm(name, _as_model(plugins.make("reward", name, options)), weight, str(plugins.find("reward", name).provenance))


def _as_model(given: Any) -> RewardModel:
    if isinstance(given, RewardModel):
        return given
    if callable(given):
        return _FunctionReward(given)
    raise InvalidArgumentError(f"a reward is a name, a callable episodes -> scores, or an object with score(episodes); got {given!r}")


def _name_of(given: Any) -> str:
    name = getattr(given, "name", None) or getattr(given, "__name__", None) or type(given).__name__
    return str(name)


@dataclass(frozen=True)
class _FunctionReward:
    """A plain function `episodes -> scores` as a reward model."""

    function: Callable[[Sequence[Episode]], Scores]

    def score(self, episodes: Sequence[Episode]) -> Scores:
        return self.function(episodes)


def _culprit(model: RewardModel, episodes: Sequence[Episode]) -> str:
    """Return which episode makes `model` raise, found by scoring them one at a time."""
    for i, episode in enumerate(episodes):
        try:
            model.score([episode])
        except Exception:
            return f"episode {i} of {len(episodes)}: {_shown(episode.text)}"
    return f"a batch of {len(episodes)} episodes, each of which it scores alone"


def _shown(value: object) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 120 else text[:117] + "..."
