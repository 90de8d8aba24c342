"""FittedEnsemble: fitted reward models of the same judgements as one reward, which knows by their spread how uncertain it is."""

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.models.abstention import Abstention, abstention
from textgym.reward_modeling.models.fitted_reward import FittedReward, scores_of_models
from textgym.reward_modeling.reward_folder import ENSEMBLE, describe, is_ensemble_folder, read_description, refuse_foreign
from textgym.rewards.combination import Combination, check_combination, combine, combined_range

Array = NDArray[np.float64]


class FittedEnsemble:
    """An ensemble fitted with `textgym reward fit --members`, read from its folder.

    Args:
        path: The folder.
        device: Where the members run.
        check_versions: False reads models that another major version of a package wrote.
        how: "mean", "min", "mean-std" or "uncertainty-weighted" (`textgym.rewards.combination.combine`); None for what it was saved with.
        penalty: Of the last two; None for what it was saved with.
        abstain_above: Spread of the members from which on it abstains; only with `fallback`.
        fallback: The score that it gives instead.

    Attributes:
        members: The models, each with its own length debiasing and calibration.
        low, high: The range of its scores.
        description: What `reward_ensemble.json` says.
        uncertainty_kind: "standard deviation of the members", in the unit of the scores.

    Raises:
        InvalidArgumentError: The folder, or a model in it, is not what it was; the line says which file.
    """

    deterministic = True
    abstention: Abstention | None
    uncertainty_kind = "standard deviation of the members"

    def __init__(
        self,
        path: str,
        device: str = "cpu",
        check_versions: bool = True,
        how: Combination | None = None,
        penalty: float | None = None,
        abstain_above: float | None = None,
        fallback: float | None = None,
    ) -> None:
        folder = Path(path)
        found = read_description(folder, check_versions, ENSEMBLE)
        members = [FittedReward(str(folder / name), device, check_versions) for name in found["members"]]
        self._take(members, how or found["how"], found["penalty"] if penalty is None else penalty, found)
        self.abstention = abstention(abstain_above, fallback, self.low, self.high, self.uncertainty_kind)

    @classmethod
    def of(
        cls, members: Sequence[FittedReward], how: Combination = "mean", penalty: float = 1.0, description: dict[str, Any] | None = None
    ) -> "FittedEnsemble":
        """Return the ensemble of models in memory; `description` is stored as it is."""
        made = cls.__new__(cls)
        made._take(members, how, penalty, description or {})
        return made

    def _take(self, members: Sequence[FittedReward], how: Combination, penalty: float, description: dict[str, Any]) -> None:
        check_combination(how)
        if not members:
            raise InvalidArgumentError("an ensemble needs at least one member")
        if not (np.isfinite(penalty) and penalty >= 0):
            raise InvalidArgumentError(f"penalty must be at least 0, got {penalty!r}")
        first = members[0]
        for member in members:
            if (member.low, member.high, member.objective.kind) != (first.low, first.high, first.objective.kind):
                raise InvalidArgumentError(
                    f"the members of an ensemble must have one range and one kind of judgements: {first.low:g}..{first.high:g} of "
                    f"{first.objective.kind}, got {member.low:g}..{member.high:g} of {member.objective.kind}"
                )
        self.members, self.how, self.penalty, self.description = tuple(members), how, float(penalty), description
        self.low, self.high = combined_range(first.low, first.high, how, self.penalty)
        self.abstention = None

    @staticmethod
    def reads_folder(path: Path) -> bool:
        """Whether a folder holds an ensemble of fitted reward models."""
        return is_ensemble_folder(path)

    def with_members(self, change: Callable[[FittedReward], FittedReward]) -> "FittedEnsemble":
        """Return the same ensemble of changed members."""
        made = copy(self)
        made.members = tuple(change(member) for member in self.members)
        return made

    @property
    def version(self) -> str:
        """The start of a hash over all members and how they are combined."""
        described = [self.how, self.penalty, *(member.version for member in self.members)]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, for models of labels; else empty."""
        return self.members[0].classes

    @property
    def training_texts(self) -> frozenset[str]:
        """Hashes of the texts that any member was fitted on."""
        return frozenset[str]().union(*(member.training_texts for member in self.members))

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the combined scores, (n,)."""
        return self.score_details(episodes)[0]

    def score_texts(self, texts: Sequence[str]) -> Array:
        """Return the combined scores of bare texts, (n,)."""
        return self._scored(texts)[0]

    def score_details(self, episodes: Sequence[Episode]) -> tuple[Array, dict[str, Array]]:
        """Return the combined scores; "uncertainty", the members' standard deviation; and "abstained", where it may abstain; (n,) each."""
        return self._scored([episode.text for episode in episodes])

    def member_scores(self, texts: Sequence[str]) -> Array:
        """Return the scores of every member, (members, n)."""
        return scores_of_models(self.members, texts)

    def uncertainty(self, episodes: Sequence[Episode]) -> Array:
        """Return the standard deviation of the members' scores, (n,)."""
        return self.score_details(episodes)[1]["uncertainty"]

    def class_probabilities(self, episodes: Sequence[Episode]) -> Array:
        """Return the mean of the members' probabilities of `classes`, (n, classes)."""
        return np.asarray(np.mean([member.class_probabilities(episodes) for member in self.members], axis=0), np.float64)

    def preference_probability(self, first: Sequence[Episode], second: Sequence[Episode]) -> Array:
        """Return the mean of the members' probabilities that the first texts are preferred to the second, (n,)."""
        return np.asarray(np.mean([member.preference_probability(first, second) for member in self.members], axis=0), np.float64)

    def _scored(self, texts: Sequence[str]) -> tuple[Array, dict[str, Array]]:
        members = self.member_scores(texts)
        scores, details = combine(members, self.how, self.penalty), {"uncertainty": members.std(0)}
        if self.abstention is not None:
            scores, more = self.abstention.applied(scores, details["uncertainty"])
            details.update(more)
        return scores, details

    def save(self, folder: str | Path, histories: Sequence[Sequence[Any]] = (), finished: bool = True) -> None:
        """Write the folder - one sub-folder a member - replacing an older one only when the new one is whole.

        Args:
            folder: Where; an existing folder that holds something else is refused.
            histories: Of the members: one entry per epoch, as plain data.
            finished: False while members are still to come.
        """
        from textgym.files import replaced_folder, write_text

        target = Path(folder)
        refuse_foreign(target)
        with replaced_folder(target) as aside:
            names = [f"member-{i}" for i in range(1, len(self.members) + 1)]
            for i, (name, member) in enumerate(zip(names, self.members, strict=True)):
                member.save(aside / name, histories[i] if i < len(histories) else ())
            own = {"how": self.how, "penalty": self.penalty, "members": names, "finished": finished, "range": [self.low, self.high]}
            self.description = describe(aside, {**self.description, **own}, (), ENSEMBLE)
            write_text(aside / ENSEMBLE, json.dumps(self.description, indent=1, ensure_ascii=False) + "\n")


def read_fitted(folder: str, device: str = "cpu") -> FittedReward | FittedEnsemble:
    """Return the fitted model, or the ensemble of them, that a folder holds."""
    return FittedEnsemble(folder, device) if is_ensemble_folder(Path(folder)) else FittedReward(folder, device)
