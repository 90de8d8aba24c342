"""Calibration: a fitted model's numbers made to mean what they say, by judgements that it was not fitted on."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.reward_modeling.reliability import reliability, sides

if TYPE_CHECKING:
    from textgym.reward_modeling.objectives import Objective

Array = NDArray[np.float64]
N_FOLDS = 5
LEAST = 20  # judgements
HOTTEST = 20.0  # temperatures from 1/20 to 20


@dataclass(frozen=True)
class Calibration:
    """One of two corrections that keep the order of texts: a temperature for classes and pairs, a rising step function for ratings.

    Attributes:
        method: "temperature" (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599) or "isotonic" (Zadrozny and
            Elkan 2002): the rising function with the least squared error. Scores on one of its steps become equal.
        error_before: Expected calibration error on the validation judgements without it.
        error_after: The same with it, each fifth of the judgements being corrected by what the others say.
        temperature: What log-probabilities or differences of latent scores are divided by; 1 for "isotonic".
        raw, calibrated: Corners of the function, rising, (corners,) each; straight lines between them, constant outside.
    """

    method: str
    error_before: float
    error_after: float
    temperature: float = 1.0
    raw: tuple[float, ...] = ()
    calibrated: tuple[float, ...] = ()

    def applied(self, scores: Tensor) -> Tensor:
        """Return corrected scores, (n,) float64; a temperature has done its work before there are scores."""
        if self.method == "temperature":
            return scores
        raw, calibrated = (torch.tensor(values, dtype=torch.float64, device=scores.device) for values in (self.raw, self.calibrated))
        x = scores.double()
        if len(raw) == 1:
            return calibrated[0] + 0 * x
        right = torch.searchsorted(raw, x.detach().contiguous()).clamp(1, len(raw) - 1)
        share = ((x - raw[right - 1]) / (raw[right] - raw[right - 1])).clamp(0, 1)
        return calibrated[right - 1] + share * (calibrated[right] - calibrated[right - 1])

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "raw": list(self.raw), "calibrated": list(self.calibrated)}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> "Calibration":
        """Return what `plain` wrote."""
        return cls(**{**plain, "raw": tuple(plain["raw"]), "calibrated": tuple(plain["calibrated"])})


def fit_calibration(objective: "Objective", outputs: Tensor, items: Sequence[Any]) -> Calibration:
    """Return the calibration that suits an objective.

    Args:
        objective: Of ratings, labels or pairs.
        outputs: The scorer's outputs of `objective.texts(items)`, (m, n_outputs).
        items: Validation judgements, 20 or more; ties are left out.

    Raises:
        InvalidArgumentError: Too few judgements.
    """
    check_enough(items)
    if objective.kind == "ratings":
        return _isotonic(objective.score(outputs).double().numpy(), np.array([item.rating for item in items]))
    if objective.kind == "labels":
        log_probs: Tensor = objective.log_probs(outputs).double()  # type: ignore[operator]
        return _temperature(log_probs, objective.targets(items)["label"])
    decided = [i for i, item in enumerate(items) if not item.tie]
    chosen, rejected = outputs[:, 0].double().chunk(2)
    with torch.no_grad():
        gaps: Tensor = objective.log_odds((chosen - rejected)[decided])  # type: ignore[operator]
    first = torch.from_numpy(sides(len(gaps)))
    signed = torch.where(first, gaps, -gaps)
    return _temperature(torch.nn.functional.logsigmoid(torch.stack([-signed, signed], dim=1)), first.long())


def check_enough(items: Sequence[Any]) -> None:
    """Raise where there are too few validation judgements to calibrate on; known before anything is fitted."""
    n = sum(not getattr(item, "tie", False) for item in items)
    if n < LEAST:
        raise InvalidArgumentError(f"calibration needs at least {LEAST} validation judgements that are no ties, got {n}")


def fit_temperature(log_probs: Tensor, label: Tensor) -> float:
    """Return the T that makes softmax(log_probs / T) most likely, (n, classes) and (n,) int64; between 1/20 and 20."""
    from scipy.optimize import minimize_scalar

    def cost(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(log_probs / float(np.exp(log_temperature)), label))

    limit = float(np.log(HOTTEST))
    return float(np.exp(minimize_scalar(cost, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6}).x))


def _temperature(log_probs: Tensor, label: Tensor) -> Calibration:

    def error(tempered: Tensor) -> float:
        confidence, found = tempered.softmax(1).max(1)
        return reliability(confidence.numpy(), (found == label).double().numpy()).error

    after = torch.empty_like(log_probs)
    for fold, rest in _folds(len(label)):
        after[fold] = log_probs[fold] / fit_temperature(log_probs[rest], label[rest])
    return Calibration("temperature", error(log_probs), error(after), temperature=fit_temperature(log_probs, label))


def _isotonic(scores: Array, ratings: Array) -> Calibration:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError:
        raise MissingExtraError("isotonic calibration", "reward-modeling") from None

    def fitted(rows: Any) -> Callable[[Array], Array]:
        model = IsotonicRegression(out_of_bounds="clip").fit(scores[rows], ratings[rows])
        return lambda values: np.interp(values, model.X_thresholds_, model.y_thresholds_)

    after = np.empty_like(scores)
    for fold, rest in _folds(len(scores)):
        after[fold] = fitted(rest)(scores[fold])
    whole = IsotonicRegression(out_of_bounds="clip").fit(scores, ratings)
    return Calibration(
        "isotonic",
        reliability(scores, ratings).error,
        reliability(after, ratings).error,
        raw=tuple(whole.X_thresholds_.tolist()),
        calibrated=tuple(whole.y_thresholds_.tolist()),
    )


def _folds(n: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    places = np.arange(n)
    return [(places[places % N_FOLDS == k], places[places % N_FOLDS != k]) for k in range(N_FOLDS)]
