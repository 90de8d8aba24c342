"""Ensemble fit: several reward models of the same judgements, each from its own seed and perhaps its own bootstrap of the training judgements."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.bootstrap import bootstrapped, drawing_units, whole_scale
from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.fitting.fit import (
    FitResult,
    FitSettings,
    Show,
    check_loss,
    fit_reward_model,
    objective_for,
    train_and_validation,
)
from textgym.reward_modeling.metrics import Metrics
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.reward_folder import refuse_foreign
from textgym.reward_modeling.scorers import scorer_class
from textgym.rewards.combination import Combination, check_combination


@dataclass(frozen=True)
class EnsembleResult:
    """What came of fitting an ensemble.

    Attributes:
        reward: The ensemble.
        fits: Of each member.
    """

    reward: FittedEnsemble
    fits: tuple[FitResult, ...]


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings:
    """How members come to differ, and how they are combined.

    Attributes:
        members: How many, 2 or more.
        bootstrap: Whether each is fitted to a bootstrap of the training judgements, near-duplicates drawn together; else only seeds differ.
        how: "mean", "min", "mean-std" or "uncertainty-weighted".
        penalty: Of the last two.
    """

    members: int = 5
    bootstrap: bool = True
    how: Combination = "mean"
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.members, bool) or not isinstance(self.members, int) or self.members < 2:
            raise InvalidArgumentError(f"an ensemble needs 2 members or more, got {self.members!r}")
        check_combination(self.how)
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise InvalidArgumentError(f"penalty must be at least 0, got {self.penalty!r}")


def fit_reward_ensemble(
    judgements: "JudgementSet[Any]",
    out: str | Path | None = None,
    *,
    ensemble: EnsembleSettings | None = None,
    scorer: str = "tfidf",
    loss: str = "squared-error",
    settings: FitSettings | None = None,
    device: str = "cpu",
    show: Show | None = None,
    report: Callable[[int, Metrics], None] | None = None,
) -> EnsembleResult:
    """Fit an ensemble. Member i has the seed `settings.seed + i`; validation judgements are the same for all.

    Args:
        judgements, scorer, loss, settings, device, show: As for `fit_reward_model`.
        out: Folder of the ensemble, written anew after every member: an interrupted fit keeps those that are done. None keeps it in memory.
        ensemble: How members differ, and how they are combined.
        report: Called with the number of the member, from 1, and each of its epochs' figures.

    Raises:
        UnknownNameError: No such scorer or loss.
        InvalidArgumentError: The judgements or settings do not fit, or all members would be the same (too few different texts to draw from).
    """
    ensemble, settings = ensemble or EnsembleSettings(), settings or FitSettings()
    if scorer_class(scorer).closed_form and not ensemble.bootstrap:
        raise InvalidArgumentError(f"{scorer!r} is solved at once, so members that differ in their seeds alone are all the same: bootstrap")
    check_loss(loss, judgements.kind)
    if out is not None:
        refuse_foreign(Path(out))
    train, validation = train_and_validation(judgements)
    objective_for(loss, train, settings)  # of all: what a member sees has its scale and classes filled in
    scale = whole_scale(train)  # of all, so that every member has the same
    units = drawing_units(train) if ensemble.bootstrap else []
    description = {"ensemble": asdict(ensemble)}
    fits: list[FitResult] = []
    for number in range(ensemble.members):
        seed = settings.seed + number
        drawn = bootstrapped(train, np.random.default_rng([seed, number]), units) if ensemble.bootstrap else train
        fitted = fit_reward_model(
            replace(judgements, items=(*drawn.items, *validation.items), **scale),
            scorer=scorer,
            loss=loss,
            settings=replace(settings, seed=seed),
            device=device,
            show=_part(show, number, ensemble.members),
            report=None if report is None else _numbered(report, number + 1),
        )
        fits.append(fitted)
        reward = FittedEnsemble.of([fit.reward for fit in fits], ensemble.how, ensemble.penalty, description)
        if out is not None:
            reward.save(out, [fit.history for fit in fits], finished=number == ensemble.members - 1)
        if show is not None and fitted.reward.scorer.closed_form:  # which shows no steps of its own
            show(number + 1, ensemble.members, f"member {number + 1} done")
    return EnsembleResult(reward, tuple(fits))


def _part(show: Show | None, number: int, members: int) -> Show | None:
    """Return a progress function for one member's share of the whole."""
    if show is None:
        return None

    def part(done: int, total: int, note: str) -> None:
        show(number * total + done, members * total, f"member {number + 1}  {note}")

    return part


def _numbered(report: Callable[[int, Metrics], None], number: int) -> Callable[[Metrics], None]:
    return lambda entry: report(number, entry)
