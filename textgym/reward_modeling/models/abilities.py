"""Abilities: what a reward can say beside its score - how uncertain it is, class probabilities, probabilities of preference."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.rewards.declaration import declaration_of
from textgym.rewards.reward import Reward

Array = NDArray[np.float64]
Scorer = Callable[[Sequence[Episode]], Array]
ABOUT = 0.5  # share of two ranges' union that lies in both: a model's may be that of its training ratings alone


@dataclass(frozen=True)
class Abilities:
    """A reward, seen by who evaluates it.

    Attributes:
        score: `score(episodes) -> (n,)`.
        uncertainty: The like; None where it does not know how uncertain it is.
        uncertainty_kind: What that is.
        classes: Names of the classes, for a model of labels.
        class_probabilities: `(episodes) -> (n, classes)`; None for other models.
        preference_probability: `(first, second) -> (n,)`, that the first are preferred; None for models that were not fitted to pairs.
        variants: The same model without one of its parts, by what is missing.
        low, high: The declared range of its scores; infinite where it declares none.
    """

    score: Scorer
    uncertainty: Scorer | None = None
    uncertainty_kind: str = ""
    classes: tuple[str, ...] = ()
    class_probabilities: Scorer | None = None
    preference_probability: Callable[[Sequence[Episode], Sequence[Episode]], Array] | None = None
    variants: "Mapping[str, Abilities]" = field(default_factory=dict)
    low: float = -math.inf
    high: float = math.inf

    def may_be_ratings(self, low: float, high: float) -> bool:
        """Whether scores may be meant as ratings on a scale: no range is declared, or one that is about the scale (an overlap of half of both)."""
        if (self.low, self.high) == (-math.inf, math.inf):
            return True
        overlap = min(self.high, high) - max(self.low, low)
        return overlap >= ABOUT * (max(self.high, high) - min(self.low, low))


def abilities_of(reward: Reward) -> Abilities:
    """Return the abilities of a reward; a sum, or a term with another weight than 1, can do no more than score."""
    model = reward.terms[0].model
    if len(reward.terms) != 1 or reward.terms[0].weight != 1:
        return Abilities(reward.score)
    if isinstance(model, (FittedReward, FittedEnsemble)):
        return _of_fitted(model)
    kind = getattr(model, "uncertainty_kind", "")
    declared = declaration_of(model)
    return Abilities(reward.score, model.uncertainty if kind else None, kind, low=declared.low, high=declared.high)  # type: ignore[attr-defined]


def fitted_model(reward: Reward) -> FittedReward | FittedEnsemble | None:
    """Return the fitted model that a reward is, None for another reward."""
    model = reward.terms[0].model
    return model if len(reward.terms) == 1 and isinstance(model, (FittedReward, FittedEnsemble)) else None


def _of_fitted(model: FittedReward | FittedEnsemble, variants: bool = True) -> Abilities:
    one = model.members[0] if isinstance(model, FittedEnsemble) else model
    kind = one.objective.kind
    found: dict[str, Abilities] = {}
    if variants:
        for part, name in (("calibration", "calibration"), ("length_debias", "length debiasing"), ("guard", "guard")):
            if getattr(one, part) is not None:
                found[f"without {name}"] = _of_fitted(_without(model, part), False)
        if isinstance(model, FittedEnsemble) and len(model.members) > 1:
            found["one member"] = _of_fitted(one, False)
    return Abilities(
        model.score,
        model.uncertainty if model.uncertainty_kind else None,
        model.uncertainty_kind,
        model.classes,
        model.class_probabilities if kind == "labels" else None,
        model.preference_probability if kind == "pairs" else None,
        found,
        model.low,
        model.high,
    )


def _without(model: FittedReward | FittedEnsemble, part: str) -> FittedReward | FittedEnsemble:
    if isinstance(model, FittedEnsemble):
        return model.with_members(lambda member: member.with_parts(**{part: None}))
    return model.with_parts(**{part: None})
