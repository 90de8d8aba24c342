"""FittedReward: a reward model made of a scorer and an objective, fitted to human judgements."""

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.device import check_device
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.models.abstention import Abstention, abstention
from textgym.reward_modeling.reward_folder import DESCRIPTION, describe, is_reward_folder, read_description, refuse_foreign

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from textgym.reward_modeling.models.calibration import Calibration
    from textgym.reward_modeling.models.guard import Guard
    from textgym.reward_modeling.models.length_debias import LengthDebias
    from textgym.reward_modeling.objectives import Objective
    from textgym.reward_modeling.scorers.scorer import Prepared, Scorer

BATCH = 64  # texts at a time


class FittedReward:
    """A reward model fitted with `textgym reward fit`, read from its folder; scores lie inside its declared range.

    From outputs to score: the length's share is taken off (`length_debias`), the objective makes a score of them (with the temperature of
    `calibration`), ratings are corrected (`calibration`), the `guard` draws exploits down, and where the model is too uncertain the fallback
    takes the score's place (`abstention`).

    Args:
        path: The folder.
        device: Where it runs.
        check_versions: False reads a model that another major version of a package wrote.
        abstain_above: Uncertainty from which on it abstains, in the unit of `uncertainty`; only with `fallback`.
        fallback: The score that it gives instead.

    Attributes:
        low, high: The range of its scores: the rating scale, 0..1 for pairs and labels unless they were given another.
        description: What `reward_model.json` says: scorer, objective, versions, hashes, metrics on the validation judgements.
        guard: Draws the scores of texts that look like exploits down; None without one.
        length_debias, calibration, abstention: None without.
        training_texts: Hashes of the texts it was fitted on (`training_texts.keys`); none where an older textgym fitted it.

    Raises:
        InvalidArgumentError: The folder, or a model it builds on, is not what it was; the line says which file.
    """

    deterministic = True
    low: float
    high: float
    abstention: Abstention | None

    def __init__(
        self,
        path: str,
        device: str = "cpu",
        check_versions: bool = True,
        abstain_above: float | None = None,
        fallback: float | None = None,
    ) -> None:
        from safetensors.torch import load_file
        from torch.random import fork_rng

        from textgym.reward_modeling.models.calibration import Calibration
        from textgym.reward_modeling.models.guard import DESCRIPTION as GUARD
        from textgym.reward_modeling.models.guard import Guard
        from textgym.reward_modeling.models.length_debias import LengthDebias
        from textgym.reward_modeling.objectives import OBJECTIVES
        from textgym.reward_modeling.scorers import scorer_class
        from textgym.reward_modeling.training_texts import FILE, read_keys

        check_device(device)
        folder = Path(path)
        found = read_description(folder, check_versions)
        where = f"reward model {str(folder)!r}"
        if found["objective"] not in OBJECTIVES:
            raise InvalidArgumentError(f"{where} was fitted by the loss {found['objective']!r}, which this textgym does not know")
        with fork_rng(devices=[]):  # weights are drawn before they are replaced: whoever loads a reward keeps its random numbers
            objective = OBJECTIVES[found["objective"]](**found["objective_settings"])
            scorer = scorer_class(found["scorer"]).load(folder, found["n_outputs"], found["scorer_settings"], device)
        guard = Guard.load(folder, device) if GUARD in found["files"] else None
        for name, now in {**scorer.sources(), **(guard.sources() if guard else {})}.items():
            if now != found["sources"].get(name):
                raise InvalidArgumentError(
                    f"{where} builds on the model {name!r}, whose files have changed since; restore them or fit again"
                )
        state = load_file(folder / "weights.safetensors")
        try:
            scorer.restore({k.removeprefix("scorer."): v for k, v in state.items() if k.startswith("scorer.")})
            objective.load_state_dict({k.removeprefix("objective."): v for k, v in state.items() if k.startswith("objective.")})
        except (KeyError, RuntimeError) as error:
            raise InvalidArgumentError(f"{where}: weights.safetensors does not fit its scorer: {' '.join(str(error).split())}") from None
        self._take(
            scorer.to(device),
            objective,
            found,
            guard,
            LengthDebias.read(found["length_debias"]) if "length_debias" in found else None,
            Calibration.read(found["calibration"]) if "calibration" in found else None,
            read_keys(folder) if FILE in found["files"] else frozenset(),
        )
        self.abstention = abstention(abstain_above, fallback, self.low, self.high, self.uncertainty_kind)

    @classmethod
    def of(
        cls,
        scorer: "Scorer",
        objective: "Objective",
        description: dict[str, Any],
        guard: "Guard | None" = None,
        length_debias: "LengthDebias | None" = None,
        calibration: "Calibration | None" = None,
        training_texts: frozenset[str] = frozenset(),
    ) -> "FittedReward":
        """Return the reward model of a scorer and an objective in memory; `description` is stored as it is."""
        made = cls.__new__(cls)
        made._take(scorer, objective, description, guard, length_debias, calibration, training_texts)
        return made

    def _take(
        self,
        scorer: "Scorer",
        objective: "Objective",
        description: dict[str, Any],
        guard: "Guard | None",
        length_debias: "LengthDebias | None",
        calibration: "Calibration | None",
        training_texts: frozenset[str],
    ) -> None:
        self.scorer, self.objective, self.description, self.guard = scorer.eval(), objective.cpu(), description, guard
        self.length_debias, self.calibration, self.training_texts = length_debias, calibration, training_texts
        self.abstention = None
        self.low, self.high = objective.low, objective.high

    def with_parts(self, **parts: Any) -> "FittedReward":
        """Return the same model with other parts: `guard`, `length_debias`, `calibration`, `abstention`; None takes one out."""
        made = copy(self)
        for name, part in parts.items():
            if name not in ("guard", "length_debias", "calibration", "abstention"):
                raise InvalidArgumentError(f"a fitted reward has no part {name!r}")
            setattr(made, name, part)
        return made

    @staticmethod
    def reads_folder(path: Path) -> bool:
        """Whether a folder holds a fitted reward model."""
        return is_reward_folder(path)

    @property
    def version(self) -> str:
        """The start of the hash over the whole model: it changes whenever scores may change."""
        files: dict[str, str] | None = self.description.get("files")
        described: dict[str, Any] = {
            "sources": self.description.get("sources", {}),
            "scorer": [self.scorer.name, self.scorer.settings()],
            "objective": [self.objective.name, self.objective.settings()],
            "files": _weights_hash({**self.scorer.state(), **self.objective.state_dict()}) if files is None else files,
        }
        for name, part in (("length_debias", self.length_debias), ("calibration", self.calibration)):
            described[name] = None if part is None else part.plain()
        described["guard"] = None if self.guard is None else self.guard.version
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def uncertainty_kind(self) -> str:
        """What `uncertainty` is: "predicted deviation of raters" (in rating points), "1 - probability of the class"; "" where there is none."""
        from textgym.reward_modeling.objectives import Heteroscedastic

        if isinstance(self.objective, Heteroscedastic):
            return "predicted deviation of raters"
        return "1 - probability of the class" if self.objective.kind == "labels" else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, for a model of labels; else empty."""
        return getattr(self.objective, "classes", ())

    def score(self, episodes: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return the scores of prompt and continuation, (n,), inside `low`..`high`."""
        return self.score_texts([episode.text for episode in episodes])

    def score_texts(self, texts: Sequence[str], prepared: "Prepared | None" = None) -> "NDArray[np.float64]":
        """Return the scores of bare texts, (n,); `prepared` is what the scorer's `prepare` returns of them, where somebody has it already."""
        return self._scored(texts, prepared)[0]

    def score_details(self, episodes: Sequence[Episode]) -> "tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]":
        """Return the scores; "uncertainty", where the model has one; and "abstained", where it may abstain; (n,) each."""
        return self._scored([episode.text for episode in episodes])

    def uncertainty(self, episodes: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return how uncertain the scores are, (n,), as `uncertainty_kind` says; raises for a model that does not know."""
        return self._uncertain(self._debiased([episode.text for episode in episodes]))

    def class_probabilities(self, episodes: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return the probabilities of `classes`, (n, classes), calibrated where the model is; for a model of labels."""
        return self._probabilities(self._debiased([episode.text for episode in episodes]))

    def preference_probability(self, first: Sequence[Episode], second: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return the probability that people prefer the first texts to the second, (n,), calibrated where the model is; of pairs only.

        Ties are left out of account: it is the probability if one is preferred.
        """
        if self.objective.kind != "pairs":
            raise InvalidArgumentError(
                f"a model fitted by {self.objective.name!r} knows no probability of preference; fit by 'bradley-terry'"
            )
        import torch

        latent = self._debiased([episode.text for episode in (*first, *second)])[:, 0].double()
        with torch.no_grad():  # an objective may have parameters of its own
            log_odds: Tensor = self.objective.log_odds(latent[: len(first)] - latent[len(first) :])  # type: ignore[operator]
        return (log_odds / (self._temperature or 1.0)).sigmoid().numpy()

    def outputs(self, texts: Sequence[str], prepared: "Prepared | None" = None) -> "Tensor":
        """Return the scorer's raw outputs, (n, n_outputs) float32 on the CPU."""
        if prepared is None:
            prepared = self.scorer.prepare(texts) if texts else []
        return evaluate(self.scorer, prepared)

    def scores_of(self, outputs: "Tensor", texts: Sequence[str]) -> "Tensor":
        """Return the scores, (n,) float64, that raw outputs (n, n_outputs) of `texts` make before guard and abstention; differentiable."""
        if self.length_debias is not None:
            outputs = self.length_debias.applied(outputs, texts)
        return self._calibrated(outputs)

    def rater_deviation(self, episodes: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return the predicted standard deviation of raters, (n,), of a model fitted by "heteroscedastic"."""
        from textgym.reward_modeling.objectives import Heteroscedastic

        if not isinstance(self.objective, Heteroscedastic):
            raise InvalidArgumentError(f"a model fitted by {self.objective.name!r} predicts no spread of raters; fit by 'heteroscedastic'")
        return self.uncertainty(episodes)

    def _scored(
        self, texts: Sequence[str], prepared: "Prepared | None" = None
    ) -> "tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]":
        import torch

        outputs = self._debiased(texts, prepared)
        with torch.no_grad():  # an objective may have parameters of its own
            scores: NDArray[np.float64] = self._calibrated(outputs).numpy()
        if self.guard is not None:
            scores = self.guard.guarded(texts, scores)
        if not self.uncertainty_kind:
            return scores, {}
        details = {"uncertainty": self._uncertain(outputs)}
        if self.abstention is not None:
            scores, more = self.abstention.applied(scores, details["uncertainty"])
            details.update(more)
        return scores, details

    @property
    def _temperature(self) -> float | None:
        return self.calibration.temperature if self.calibration is not None and self.calibration.method == "temperature" else None

    def _debiased(self, texts: Sequence[str], prepared: "Prepared | None" = None) -> "Tensor":
        outputs = self.outputs(texts, prepared)
        return outputs if self.length_debias is None else self.length_debias.applied(outputs, texts)

    def _calibrated(self, outputs: "Tensor") -> "Tensor":
        scores = self.objective.score(outputs, self._temperature).double()
        if self.calibration is not None:
            scores = self.calibration.applied(scores)
        return scores.clamp(self.low, self.high)

    def _probabilities(self, outputs: "Tensor") -> "NDArray[np.float64]":
        import torch

        if self.objective.kind != "labels":
            raise InvalidArgumentError(f"a model fitted by {self.objective.name!r} knows no classes; fit by 'cross-entropy' or 'ordinal'")
        with torch.no_grad():
            found: NDArray[np.float64] = self.objective.probabilities(outputs, self._temperature).double().numpy()  # type: ignore[operator]
        return found

    def _uncertain(self, outputs: "Tensor") -> "NDArray[np.float64]":
        from textgym.reward_modeling.objectives import Heteroscedastic

        if isinstance(self.objective, Heteroscedastic):
            deviation: NDArray[np.float64] = self.objective.deviation(outputs).double().numpy()
            return deviation
        if self.objective.kind != "labels":
            raise InvalidArgumentError(
                f"a single model fitted by {self.objective.name!r} does not know how uncertain it is; an ensemble does (--members 5 --bootstrap)"
            )
        found: NDArray[np.float64] = 1 - self._probabilities(outputs).max(1, initial=0.0)
        return found

    def save(self, folder: str | Path, history: Sequence[Any] = (), finished: bool = True) -> None:
        """Write the model's folder, replacing an older one only when the new one is whole.

        Args:
            folder: Where; an existing folder that holds something else is refused.
            history: One entry per epoch, as plain data.
            finished: False while fitting goes on.
        """
        from safetensors.torch import save_file

        from textgym.files import replaced_folder, write_text
        from textgym.reward_modeling.training_texts import write_keys

        target = Path(folder)
        refuse_foreign(target)
        with replaced_folder(target) as aside:
            state = {f"scorer.{k}": v for k, v in self.scorer.state().items()}
            state |= {f"objective.{k}": v.detach().cpu().clone() for k, v in self.objective.state_dict().items()}
            save_file(state, aside / "weights.safetensors")
            self.scorer.save_assets(aside)
            if self.training_texts:
                write_keys(aside, self.training_texts)
            if self.guard is not None:
                self.guard.save(aside)
            own = {
                "scorer": self.scorer.name,
                "scorer_settings": self.scorer.settings(),
                "n_outputs": self.scorer.n_outputs,
                "objective": self.objective.name,
                "objective_settings": self.objective.settings(),
                "range": [self.low, self.high],
                "sources": {**self.scorer.sources(), **(self.guard.sources() if self.guard else {})},
            }
            kept = {k: v for k, v in self.description.items() if k not in ("length_debias", "calibration")}
            for name, part in (("length_debias", self.length_debias), ("calibration", self.calibration)):
                if part is not None:
                    own[name] = part.plain()
            self.description = describe(aside, {**kept, **own}, self.scorer.packages)
            write_text(aside / DESCRIPTION, json.dumps(self.description, indent=1, ensure_ascii=False) + "\n")
            write_history(aside, history, finished)


def scores_of_models(models: Sequence[FittedReward], texts: Sequence[str]) -> "NDArray[np.float64]":
    """Return the scores of several models, (models, n); what their scorers read once per text is read once for all that can share it."""
    import numpy as np

    read: dict[Hashable, Prepared] = {}
    scores = []
    for model in models:
        key = model.scorer.preparation()
        if key is not None and key not in read:
            read[key] = model.scorer.prepare(texts) if texts else []
        scores.append(np.asarray(model.score_texts(texts, None if key is None else read[key]), np.float64))
    return np.stack(scores)


def write_history(folder: Path, history: Sequence[Any], finished: bool) -> None:
    """Write the epochs so far; a figure that could not be measured as null, for JSON knows no nan."""
    from textgym.files import write_text
    from textgym.reward_modeling.reward_folder import HISTORY

    epochs = [{name: value if math.isfinite(value) else None for name, value in entry.items()} for entry in history]
    write_text(folder / HISTORY, json.dumps({"finished": finished, "epochs": epochs}, indent=1, allow_nan=False) + "\n")


def _weights_hash(state: "Mapping[str, Tensor]") -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def evaluate(scorer: "Scorer", prepared: Sequence[Any]) -> "Tensor":
    """Return the outputs of prepared texts, (n, n_outputs) float32 on the CPU, without gradients and dropout."""
    import torch

    from textgym.reward_modeling.scorers.features import batches_by_length

    found = torch.zeros(len(prepared), scorer.n_outputs)
    was_training = scorer.training
    scorer.eval()
    sizes = [scorer.length(entry) for entry in prepared]
    with torch.no_grad():
        for rows in batches_by_length(sizes, BATCH):
            found[rows] = scorer([prepared[row] for row in rows]).float().cpu()
    scorer.train(was_training)
    return found
