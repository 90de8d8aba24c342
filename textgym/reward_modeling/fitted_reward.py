"""FittedReward: a reward model made of a scorer and an objective, fitted to human judgements."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.reward_folder import DESCRIPTION, describe, is_reward_folder, read_description

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from textgym.reward_modeling.guard import Guard
    from textgym.reward_modeling.objectives import Objective
    from textgym.reward_modeling.scorer import Scorer

BATCH = 64  # texts at a time


class FittedReward:
    """A reward model fitted with `textgym reward fit`, read from its folder; scores lie inside its declared range.

    Args:
        path: The folder.
        device: Where it runs.
        check_versions: False reads a model that another major version of a package wrote.

    Attributes:
        low, high: The range of its scores: the rating scale, 0..1 for pairs and labels unless they were given another.
        description: What `reward_model.json` says: scorer, objective, versions, hashes, metrics on the validation judgements.
        guard: Draws the scores of texts that look like exploits down; None without one.

    Raises:
        InvalidArgumentError: The folder, or a model it builds on, is not what it was; the line says which file.
    """

    deterministic = True
    low: float
    high: float

    def __init__(self, path: str, device: str = "cpu", check_versions: bool = True) -> None:
        from safetensors.torch import load_file

        from textgym.reward_modeling.guard import DESCRIPTION as GUARD
        from textgym.reward_modeling.guard import Guard
        from textgym.reward_modeling.objectives import OBJECTIVES
        from textgym.reward_modeling.scorers import scorer_class

        folder = Path(path)
        found = read_description(folder, check_versions)
        where = f"reward model {str(folder)!r}"
        if found["objective"] not in OBJECTIVES:
            raise InvalidArgumentError(f"{where} was fitted by the loss {found['objective']!r}, which this textgym does not know")
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
        self._take(scorer.to(device), objective, found, guard)

    @classmethod
    def of(cls, scorer: "Scorer", objective: "Objective", description: dict[str, Any], guard: "Guard | None" = None) -> "FittedReward":
        """Return the reward model of a scorer and an objective in memory; `description` is stored as it is."""
        made = cls.__new__(cls)
        made._take(scorer, objective, description, guard)
        return made

    def _take(self, scorer: "Scorer", objective: "Objective", description: dict[str, Any], guard: "Guard | None") -> None:
        self.scorer, self.objective, self.description, self.guard = scorer.eval(), objective.cpu(), description, guard
        self.low, self.high = objective.low, objective.high

    @staticmethod
    def reads_folder(path: Path) -> bool:
        """Whether a folder holds a fitted reward model."""
        return is_reward_folder(path)

    @property
    def version(self) -> str:
        """The start of the hash over the whole model: it changes whenever scores may change."""
        described = json.dumps(
            {k: v for k, v in self.description.items() if k in ("files", "sources", "objective_settings")}, sort_keys=True
        )
        return hashlib.sha256(described.encode()).hexdigest()[:12]

    def score(self, episodes: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return the scores of prompt and continuation, (n,), inside `low`..`high`."""
        return self.score_texts([episode.text for episode in episodes])

    def score_texts(self, texts: Sequence[str]) -> "NDArray[np.float64]":
        """Return the scores of bare texts, (n,)."""
        import torch

        with torch.no_grad():  # an objective may have parameters of its own
            scores: NDArray[np.float64] = self.objective.score(self.outputs(texts)).double().clamp(self.low, self.high).numpy()
        return scores if self.guard is None else self.guard.guarded(texts, scores)

    def outputs(self, texts: Sequence[str]) -> "Tensor":
        """Return the scorer's raw outputs, (n, n_outputs) float32 on the CPU."""
        return evaluate(self.scorer, self.scorer.prepare(texts))

    def rater_deviation(self, episodes: Sequence[Episode]) -> "NDArray[np.float64]":
        """Return the predicted standard deviation of raters, (n,), of a model fitted by "heteroscedastic"."""
        from textgym.reward_modeling.objectives import Heteroscedastic

        if not isinstance(self.objective, Heteroscedastic):
            raise InvalidArgumentError(f"a model fitted by {self.objective.name!r} predicts no spread of raters; fit by 'heteroscedastic'")
        import torch

        with torch.no_grad():
            return self.objective.deviation(self.outputs([e.text for e in episodes])).double().numpy()

    def save(self, folder: str | Path, history: Sequence[Any] = (), finished: bool = True) -> None:
        """Write the model's folder, replacing an older one only when the new one is whole.

        Args:
            folder: Where; an existing folder that holds something else is refused.
            history: One entry per epoch, as plain data.
            finished: False while fitting goes on.
        """
        from safetensors.torch import save_file

        from textgym.files import replaced_folder, write_text

        target = Path(folder)
        refuse_foreign(target)
        with replaced_folder(target) as aside:
            state = {f"scorer.{k}": v for k, v in self.scorer.state().items()}
            state |= {f"objective.{k}": v.detach().cpu().clone() for k, v in self.objective.state_dict().items()}
            save_file(state, aside / "weights.safetensors")
            self.scorer.save_assets(aside)
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
            self.description = describe(aside, {**self.description, **own}, self.scorer.packages)
            write_text(aside / DESCRIPTION, json.dumps(self.description, indent=1, ensure_ascii=False) + "\n")
            write_history(aside, history, finished)


def write_history(folder: Path, history: Sequence[Any], finished: bool) -> None:
    """Write the epochs so far."""
    from textgym.files import write_text
    from textgym.reward_modeling.reward_folder import HISTORY

    write_text(folder / HISTORY, json.dumps({"finished": finished, "epochs": list(history)}, indent=1) + "\n")


def refuse_foreign(folder: Path) -> None:
    """Raise if a folder holds something that is no reward model: it would be lost."""
    if folder.exists() and not (folder.is_dir() and (is_reward_folder(folder) or not any(folder.iterdir()))):
        raise InvalidArgumentError(f"{str(folder)!r} exists and holds no reward model; choose another folder")


def evaluate(scorer: "Scorer", prepared: Sequence[Any]) -> "Tensor":
    """Return the outputs of prepared texts, (n, n_outputs) float32 on the CPU, without gradients and dropout."""
    import torch

    from textgym.reward_modeling.features import batches_by_length

    found = torch.zeros(len(prepared), scorer.n_outputs)
    was_training = scorer.training
    scorer.eval()
    sizes = [len(p) if isinstance(p, list) else 0 for p in prepared]  # only token ids differ in length
    with torch.no_grad():
        for rows in batches_by_length(sizes, BATCH):
            found[rows] = scorer([prepared[row] for row in rows]).float().cpu()
    scorer.train(was_training)
    return found
