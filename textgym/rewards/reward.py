"""Reward: a weighted sum of named terms, and `make_reward`, which builds one from whatever a user gives."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, TextgymError, UnknownNameError, one_line
from textgym.plugin_manager import check_options, installed_plugins
from textgym.rewards.adapt import as_reward_model
from textgym.rewards.expression import SECRET, Call, is_sum, join, parse, show
from textgym.rewards.protocol import Array, RewardSpec
from textgym.rewards.session import RewardSession
from textgym.rewards.term import RewardTerm, add_inner
from textgym.tokenization import Vocabulary


@dataclass(frozen=True)
class Reward:
    """A weighted sum of reward terms; with one term of weight 1, that term itself."""

    terms: tuple[RewardTerm, ...]

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        for name in names:
            if names.count(name) > 1:
                raise InvalidArgumentError(
                    f"the reward {name!r} occurs twice in one sum: add its weights up, or name two different functions differently"
                )

    @property
    def name(self) -> str:
        """The reward as text: "human-rating", or "human-rating - 0.5*repetition"."""
        return join([(term.weight, term.name) for term in self.terms])

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the reward of each finished episode, (n,) float64; nan where serving with `on_failure="drop"` gave one up."""
        return self.score_terms(episodes)[0]

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the rewards, (n,), and the unweighted score of each term, and of the rewards inside it, by name, (n,) each."""
        total, values = np.zeros(len(episodes)), dict[str, Array]()
        for term in self.terms:
            scores, inside = term.score_terms(episodes, learning)
            total += term.weight * scores
            values[term.name] = scores
            add_inner(values, term.name, inside)
        return total, values

    def session(self, n_rows: int, vocabulary: Vocabulary, learning: bool = False) -> RewardSession:
        """Return the state of this reward over `n_rows` running episodes."""
        return RewardSession(self, n_rows, vocabulary, learning)

    def identity(self) -> str:
        """Return what the scores depend on beside the episodes: plugins, versions, options, weights."""
        return " + ".join(f"{term.weight!r}*({term.identity()})" for term in self.terms)

    def state(self) -> dict[str, Any]:
        """Return what the terms have learnt in training (running statistics), as plain data by term name."""
        return {t.name: t.model.state() for t in self.terms if callable(getattr(t.model, "state", None))}  # type: ignore[attr-defined]

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for term in self.terms:
            if term.name in state:
                term.model.load_state(state[term.name])  # type: ignore[attr-defined]


def make_reward(spec: "RewardSpec | Reward", **options: Any) -> Reward:
    """Build a reward.

    Args:
        spec: A registered name; a folder that holds a reward model; a text like "human-rating + 0.2*fluency - 0.1*length(target=20)";
            a function or coroutine function `episodes -> scores`; an object (or class) with `score` or `score_tokens`; a
            `torch.nn.Module`; or a mapping of any of these to weights.
        **options: Settings of the registered reward (or of the class); `device` and `dtype` of a torch module.

    Returns:
        The reward; its `score(episodes)` returns (n,) float64.

    Raises:
        UnknownNameError: No plugin registered the name.
        InvalidArgumentError: The options do not fit, the text cannot be read, or `spec` is none of the above.
    """
    if isinstance(spec, Reward):
        return spec
    if isinstance(spec, Mapping):
        return _weighted_sum(spec, options)
    if isinstance(spec, str):
        return _named(spec, options)
    if isinstance(spec, type):
        if options:
            check_options(f"reward {spec.__name__!r}", spec, options)
        spec, options = spec(**options), {}
    module_options = {key: options.pop(key) for key in ("device", "dtype") if key in options and hasattr(spec, "parameters")}
    if options:
        raise InvalidArgumentError(f"options {sorted(options)} fit a reward given by name or class, not {spec!r}")
    return Reward((RewardTerm(_name_of(spec), as_reward_model(spec, **module_options)),))


def _weighted_sum(spec: Mapping[str, float], options: Mapping[str, Any]) -> Reward:
    if options:
        raise InvalidArgumentError(
            f'options {sorted(options)} fit one named reward, not a weighted sum; write them behind the names: {{"length(target=20)": 0.1}}'
        )
    if not spec:
        raise InvalidArgumentError("a weighted sum of rewards needs at least one name")
    terms = []
    for name, weight in spec.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not np.isfinite(weight):
            raise InvalidArgumentError(f"the weight of reward {name!r} must be a finite number, got {weight!r}")
        if not isinstance(name, str) and not callable(name) and not hasattr(name, "score"):
            raise UnknownNameError("reward", str(name), installed_plugins().registrations("reward"))
        terms += [replace(term, weight=term.weight * float(weight)) for term in make_reward(name).terms]
    return Reward(tuple(terms))


def _named(text: str, options: Mapping[str, Any]) -> Reward:
    """Return the reward of a registered name or of a text that combines several."""
    if text.strip() in installed_plugins().registrations("reward"):
        return Reward((_term(Call(text.strip(), (), dict(options))),))
    if os.path.isdir(text):  # which, unlike Path.is_dir, bears any text
        return Reward((_term(Call(_reader_of(Path(text)), (), {"path": text, **options}), text),))
    summands = parse(text)
    if len(summands) == 1 and summands[0][0] == 1.0:  # a single one, which may be given its options either way
        call = summands[0][1]
        return Reward((_term(Call(call.name, call.arguments, {**call.options, **options}), show(call)),))
    if options:
        raise InvalidArgumentError(f"options {sorted(options)} fit one named reward, not the sum {text!r}: write name(option=value)")
    return Reward(tuple(_term(call, show(call), weight) for weight, call in summands))


def _reader_of(folder: Path) -> str:
    """Return the registered reward that says of itself, by `reads_folder(path)`, that it is made from such a folder."""
    readers = {
        name: registration.factory.reads_folder
        for name, registration in installed_plugins().registrations("reward").items()
        if hasattr(registration.factory, "reads_folder")
    }
    for name, reads in readers.items():
        if reads(folder):
            return name
    raise InvalidArgumentError(
        f"the folder {str(folder)!r} holds no reward model that one of these can read: {', '.join(readers) or 'none'}"
    )


def _term(call: Call, name: str | None = None, weight: float = 1.0) -> RewardTerm:
    """Build one term; texts of rewards inside it are built first."""
    plugins = installed_plugins()
    registration = plugins.find("reward", call.name)
    inside = [Reward(tuple(_term(c, show(c), w) for w, c in a)) if is_sum(a) else a for a in call.arguments]
    check_options(f"reward {call.name!r}", registration.factory, call.options, given=len(inside))
    try:
        model = as_reward_model(registration.factory(*inside, **call.options))
    except TextgymError:
        raise
    except (TypeError, ValueError) as error:
        called = error.__traceback__ is None or error.__traceback__.tb_next is None  # else the arguments fit, and one has a wrong value
        if called and (missing := _missing(registration.factory, len(inside), call.options)):
            raise InvalidArgumentError(
                f"reward {call.name!r} needs {', '.join(missing)}: write {call.name}({', '.join(f'{name}=...' for name in missing)})"
            ) from None
        reason = str(error) if called else one_line(error)
        raise InvalidArgumentError(f"reward {call.name!r} cannot be made from {show(call)}: {reason}") from error
    options = {key: value for key, value in call.options.items() if key != SECRET}
    settings = {**{str(i): a.identity() if isinstance(a, Reward) else a for i, a in enumerate(inside)}, **options}
    return RewardTerm(name or call.name, model, weight, str(registration.provenance), settings)


def _missing(factory: Any, n_given: int, options: Mapping[str, Any]) -> list[str]:
    """Return the parameters without a default that `n_given` arguments and `options` leave open."""
    parameters = inspect.signature(factory).parameters.values()
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:n_given]
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p not in by_place and p.name not in options and p.default is p.empty and p.kind not in optional]


def _name_of(given: Any) -> str:
    name = getattr(given, "name", None) or getattr(given, "__name__", None) or type(given).__name__
    return str(name)
