"""RewardTerm: one reward model under its name, every score of it checked at the border before anything else sees it."""

import inspect
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, RewardError, one_line
from textgym.rewards.declaration import declaration_of
from textgym.rewards.protocol import Array, CompositeRewardModel, DetailedRewardModel, RewardModel, Scores
from textgym.rewards.serving import Failure, Serving, serve

logger = logging.getLogger("textgym")
COROUTINE_TIMEOUT = 600.0  # seconds for a coroutine that declares no serving of its own


@dataclass(frozen=True)
class RewardTerm:
    """One reward model with its weight and where it comes from.

    Attributes:
        name: As logged.
        model: Scores the episodes.
        weight: Of its scores in the sum.
        origin: The plugin and distribution that registered it, "" for an object from the user's code.
        options: The settings it was made with.
        serving: How it is called if that takes long; None for what the model declares, or plainly.
    """

    name: str
    model: RewardModel
    weight: float = 1.0
    origin: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    serving: Serving | None = None

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the unweighted, checked scores, (n,) float64, and by name the values inside a composite model, or a detailed one's figures.

        A score is nan only where the serving's `on_failure="drop"` gave an episode up. What is served by `served(...)` tells no details.
        """
        if self._composite is not None:
            scores, inside = self._composite.score_terms(episodes, learning)
            return self.checked(scores, episodes, dropped=True), inside
        if self._detailed is not None and self.serving is None:
            try:
                raw, details = self._detailed.score_details(list(episodes))
            except Exception as error:
                raise RewardError(f"{self} raised {one_line(error)} - on {_culprit(self.model, episodes)}") from error
            return self.checked(raw, episodes), {name: self.checked(figures, episodes) for name, figures in details.items()}
        return self._score(episodes), {}

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the unweighted, checked scores, (n,) float64."""
        return self.score_terms(episodes)[0]

    # asking a protocol costs more than a cheap reward for a batch, so each is asked once

    @cached_property
    def _composite(self) -> CompositeRewardModel | None:
        return self.model if isinstance(self.model, CompositeRewardModel) else None

    @cached_property
    def _detailed(self) -> DetailedRewardModel | None:
        return self.model if isinstance(self.model, DetailedRewardModel) else None

    def _score(self, episodes: Sequence[Episode]) -> Array:
        if not episodes:
            return np.zeros(0)
        serving = self.serving or getattr(self.model, "serving", None)
        if isinstance(serving, Serving):
            return self._served(self.model.score, episodes, serving)
        if inspect.iscoroutinefunction(self.model.score):
            return self._served(self.model.score, episodes, _at_once(episodes))
        try:
            raw = self.model.score(list(episodes))
        except Exception as error:
            raise RewardError(f"{self} raised {one_line(error)} - on {_culprit(self.model, episodes)}") from error
        if inspect.isawaitable(raw):  # a plain function that returns a coroutine

            async def awaited(_: Sequence[Episode]) -> Scores:
                return await raw

            return self._served(awaited, episodes, _at_once(episodes))
        return self.checked(raw, episodes)

    def _served(self, score: Callable[[Sequence[Episode]], Any], episodes: Sequence[Episode], serving: Serving) -> Array:
        scores, start = np.full(len(episodes), np.nan), 0
        for piece, result in serve(score, episodes, serving, self.checked):
            stop = start + len(piece)
            if isinstance(result, Failure):
                which = f"episode {start} of {len(episodes)}" if len(piece) == 1 else f"episodes {start}..{stop - 1} of {len(episodes)}"
                message = f"{self} failed: {result} - on {which}: {_shown(piece[0].text)}"
                if result.fatal or serving.on_failure == "fail":
                    raise RewardError(message)
                logger.warning("%s; dropped", message)
            else:
                scores[start:stop] = result
            start = stop
        return scores

    def checked(self, raw: Scores, episodes: Sequence[Episode], dropped: bool = False) -> Array:
        """Return `raw` as (n,) float64; raise `RewardError` naming plugin, episode and text unless it is n finite numbers.

        Args:
            raw: What the reward model returned.
            episodes: What it was asked about.
            dropped: Whether nan, an episode given up, may pass.
        """
        try:
            if hasattr(raw, "detach"):  # a torch tensor, on whatever device
                raw = raw.detach().cpu()
                raw = (raw.double() if raw.is_floating_point() else raw).numpy()  # NumPy has no bfloat16
            elif isinstance(raw, (list, tuple)) and any(hasattr(score, "detach") for score in raw):
                raw = [score.item() if hasattr(score, "detach") and score.numel() == 1 else score for score in raw]
            scores = np.asarray(raw)
        except (ValueError, TypeError, RuntimeError, OverflowError):
            scores = np.empty(0, object)
        if scores.dtype.kind not in "fiub":
            raise RewardError(f"{self} must return numbers, got {_shown(raw)}")
        if scores.shape != (len(episodes),):
            raise RewardError(f"{self} must return {len(episodes)} scores for {len(episodes)} episodes, got shape {scores.shape}")
        bad = np.flatnonzero(np.isinf(scores) if dropped else ~np.isfinite(scores))
        if bad.size:
            raise RewardError(f"{self} returned {scores[bad[0]]} for episode {bad[0]} of {len(episodes)}: {_shown(episodes[bad[0]].text)}")
        return scores.astype(np.float64)

    def identity(self) -> str:
        """Return what the scores depend on beside the episode: plugin, version, options; raises for an object from the user's code."""
        nested = getattr(self.model, "identity", None)
        if callable(nested):
            return str(nested())
        if not self.origin:
            raise InvalidArgumentError(f"{self} has no registered name by which its scores could be kept: pass identity=")
        try:
            options = plain_json(dict(self.options))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{self} has an option that no key can be made of: {error}: pass identity=") from None
        return f"{self.origin} {declaration_of(self.model).version} {options}"

    def __str__(self) -> str:
        return f"reward {self.name!r}" + (f" of plugin {self.origin}" if self.origin else "")


def _at_once(episodes: Sequence[Episode]) -> Serving:
    """Return how a coroutine is called that declares no serving of its own."""
    return Serving(batch_size=len(episodes), timeout=COROUTINE_TIMEOUT, retries=0)


def add_inner(values: dict[str, Array], outer: str, inner: Mapping[str, Array]) -> None:
    """Add the values inside the reward `outer` to those by name; one whose name is taken goes by "outer/name"."""
    for name, value in inner.items():
        values[name if name not in values else f"{outer}/{name}"] = value


def plain_json(data: Any) -> str:
    """Return data as JSON that is the same in every process; raise `InvalidArgumentError` for what has no such form."""

    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, (set, frozenset)):
            return sorted(value)
        if isinstance(value, Mapping):
            return dict(value)
        for form in ("tolist", "isoformat"):  # NumPy's, dates
            if hasattr(value, form):
                return getattr(value, form)()
        raise TypeError(f"{value!r:.80} is no plain data")

    try:
        # surrogates, which a broken decoding can leave in a text, are escaped rather than refused
        return json.dumps(data, sort_keys=True, default=plain)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(" ".join(str(error).split())) from None


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
