"""Learning curve: how well a fitted model would agree with people if it had been fitted to fewer judgements."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.experiments.statistics import Estimate
from textgym.reward_modeling.data.bootstrap import whole_scale
from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.fitting.ensemble_fit import EnsembleSettings, fit_reward_ensemble
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.metrics import correlation
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward

Array = NDArray[np.float64]
FIGURES = {"ratings": "pearson", "labels": "accuracy", "pairs": "pairwise accuracy"}


@dataclass(frozen=True)
class LearningCurve:
    """A figure by number of training judgements.

    Attributes:
        figure: "pearson" for ratings, "accuracy" for labels, "pairwise accuracy" for pairs.
        sizes: Training judgements, rising, (sizes,).
        values: Of each size and draw, (sizes, draws); nan where a draw would be an earlier one again: of all judgements there is but one.
    """

    figure: str
    sizes: tuple[int, ...]
    values: Array

    @property
    def estimates(self) -> list[Estimate]:
        """The mean over the draws with their range, one per size; the range is nan where there was but one draw."""
        ranges = [(float(np.nanmean(row)), row[np.isfinite(row)]) for row in self.values]
        return [Estimate(mean, *((float(r.min()), float(r.max())) if len(r) > 1 else (math.nan, math.nan))) for mean, r in ranges]


def learning_curve(
    model: FittedReward | FittedEnsemble,
    judgements: "JudgementSet[Any]",
    sizes: Sequence[int],
    n_draws: int = 3,
    split: Any = "test",
    seed: int = 0,
    show: Callable[[int, int, str], None] = lambda *_: None,
) -> LearningCurve:
    """Refit a model with its recorded settings to draws of the training judgements; measure each on the judgements of `split`.

    The draws of one number are nested: each size adds judgements to the smaller one. Validation judgements, which stop fitting and calibrate,
    are the same for all. A guard is not refitted.

    Args:
        model: Fitted by `textgym reward fit`.
        judgements: With training, validation and test judgements.
        sizes: Numbers of training judgements, two or more, 10 at least each.
        n_draws: At least 2.
        split: Where it is measured.
        seed: Of the draws.
        show: Progress: called with (fits done, of so many, note).

    Raises:
        InvalidArgumentError: Sizes that cannot be, other judgements than the model was fitted to, or a model without recorded settings.
    """
    train, validation, test = judgements.split("train"), judgements.split("validation"), judgements.split(split)
    wanted = tuple(sorted(set(sizes)))
    if len(wanted) < 2 or wanted[0] < 10 or wanted[-1] > len(train):
        raise InvalidArgumentError(
            f"a learning curve takes two sizes or more, from 10 to the {len(train):,} training judgements, got "
            f"{', '.join(map(str, sizes)) or 'none'}"
        )
    if n_draws < 2:
        raise InvalidArgumentError(f"a learning curve takes 2 draws or more, got {n_draws}")
    if len(validation) < 2 or len(test) < 10:
        raise InvalidArgumentError(
            f"a learning curve takes validation judgements and 10 of {split!r}, got {len(validation)} and {len(test)}"
        )
    one = model.members[0] if isinstance(model, FittedEnsemble) else model
    if one.objective.kind != judgements.kind:
        raise InvalidArgumentError(f"the model was fitted to {one.objective.kind}, a learning curve on {judgements.kind} cannot be drawn")
    whole = replace(judgements, **whole_scale(train))
    values = np.full((len(wanted), n_draws), np.nan)
    for draw in range(n_draws):
        order = np.random.default_rng([seed, draw]).permutation(len(train))
        for place, size in enumerate(wanted):
            show(draw * len(wanted) + place, n_draws * len(wanted), f"{size:,} judgements, draw {draw + 1}")
            if size == len(train) and draw:  # all of them are the same draw every time
                continue
            items = tuple(train.items[row] for row in sorted(order[:size].tolist()))
            values[place, draw] = _agreement(refitted(model, replace(whole, items=(*items, *validation.items))), test)
    show(n_draws * len(wanted), n_draws * len(wanted), "done")
    return LearningCurve(FIGURES[judgements.kind], wanted, values)


def refitted(model: FittedReward | FittedEnsemble, judgements: "JudgementSet[Any]") -> FittedReward | FittedEnsemble:
    """Return a model fitted to other judgements with the settings that this one was fitted with."""
    one = model.members[0] if isinstance(model, FittedEnsemble) else model
    recorded = one.description.get("fit")
    if not isinstance(recorded, dict):
        raise InvalidArgumentError("the model's description records no settings of a fit, so it cannot be fitted again")
    settings = FitSettings.read(recorded)
    names: dict[str, Any] = {"scorer": one.scorer.name, "loss": one.objective.name, "device": getattr(one.scorer, "device", "cpu")}
    if isinstance(model, FittedEnsemble):
        ensemble = EnsembleSettings(**model.description.get("ensemble", {"members": max(2, len(model.members))}))
        return fit_reward_ensemble(judgements, ensemble=ensemble, settings=settings, **names).reward
    return fit_reward_model(judgements, settings=settings, **names).reward


def _agreement(model: FittedReward | FittedEnsemble, judgements: "JudgementSet[Any]") -> float:
    items: Sequence[Any] = judgements.items
    if judgements.kind == "ratings":
        scores = model.score([Episode(item.prompt, item.text) for item in items])
        return correlation(scores, np.array([item.rating for item in items]))
    if judgements.kind == "labels":
        found = model.class_probabilities([Episode(item.prompt, item.text) for item in items]).argmax(1)
        return float(np.mean([model.classes[k] == item.label for k, item in zip(found.tolist(), items, strict=True)]))
    decided = [item for item in items if not item.tie]
    chosen = model.score([Episode(item.prompt, item.chosen) for item in decided])
    rejected = model.score([Episode(item.prompt, item.rejected) for item in decided])
    return float((np.sign(chosen - rejected) + 1).mean() / 2)
