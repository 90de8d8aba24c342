"""LengthDebias: what a reward model's outputs owe to the length of the text alone, taken off."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class LengthDebias:
    """Outputs less their regression on log(1 + words), so that on the fitted texts they are uncorrelated with length.

    Everything that goes along with length is taken off, also what people really like about longer texts: compare with the length correlation
    of the judgements before you use it.

    Attributes:
        slope: Of each output on log(1 + words), (n_outputs,).
        centre: Mean of log(1 + words) over the fitted texts; a text of that length keeps its outputs.
    """

    slope: tuple[float, ...]
    centre: float

    @classmethod
    def fit(cls, outputs: Tensor, texts: Sequence[str], columns: slice) -> "LengthDebias":
        """Return the regression of outputs (n, n_outputs) of `texts`; outputs that are not in `columns` stay as they are."""
        lengths = log_words(texts)
        centre = float(lengths.mean())
        x = lengths - centre
        y = outputs.detach().double().cpu().numpy()
        variance = float(x @ x)
        found = x @ (y - y.mean(0)) / variance if variance > 0 else np.zeros(y.shape[1])
        slope = np.zeros(y.shape[1])
        slope[columns] = found[columns]
        return cls(tuple(slope.tolist()), centre)

    def applied(self, outputs: Tensor, texts: Sequence[str]) -> Tensor:
        """Return the outputs (n, n_outputs) of `texts` without their length's share."""
        x = torch.from_numpy(log_words(texts) - self.centre).to(outputs)
        return outputs - x[:, None] * torch.tensor(self.slope).to(outputs)

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "slope": list(self.slope)}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> "LengthDebias":
        """Return what `plain` wrote."""
        return cls(tuple(map(float, plain["slope"])), float(plain["centre"]))


def log_words(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return log(1 + number of words) of each text, (n,)."""
    return np.log1p(np.array([len(text.split()) for text in texts], np.float64))
