"""Over-optimisation: what the true reward does while a learnt one is pushed up - the figures, and the forms that are fitted to them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError

Array = NDArray[np.float64]
Form = Literal["best-of-n", "rl"]


def kl_of_best_of_n(n: int) -> float:
    """Return KL(best of n ‖ one sample) = log n − (n−1)/n, in nats per text (an upper bound where scores tie; Gao et al. 2022)."""
    if n < 1:
        raise InvalidArgumentError(f"n must be at least 1, got {n}")
    return math.log(n) - (n - 1) / n


def best_of_n(proxy: Array, values: Array, n: int) -> Array:
    """Return the expected value of the text that has the highest proxy of n, over all ways to draw n of the samples, (prompts,).

    The unbiased estimate of Nakano et al. (2021, arXiv:2112.09332, appendix I): of N samples in order of their proxy, the i-th is the best
    of n with probability C(i−1, n−1) / C(N, n). Samples with equal proxies share their chances.

    Args:
        proxy: What the best is chosen by, (prompts, N).
        values: What is averaged - the proxy itself, or the gold score, (prompts, N).
        n: 1..N.
    """
    n_samples = proxy.shape[1]
    if proxy.shape != values.shape:
        raise InvalidArgumentError(f"proxy and values must have one shape, got {proxy.shape} and {values.shape}")
    if not 1 <= n <= n_samples:
        raise InvalidArgumentError(f"n must be 1..{n_samples}, the number of samples, got {n}")
    from scipy.special import gammaln

    i = np.arange(n, n_samples + 1)
    chance = np.zeros(n_samples)
    log_choose = gammaln(i) - gammaln(n) - gammaln(i - n + 1)
    log_all = gammaln(n_samples + 1) - gammaln(n + 1) - gammaln(n_samples - n + 1)
    chance[n - 1 :] = np.exp(log_choose - log_all)
    result = np.empty(len(proxy))
    for row, (p, v) in enumerate(zip(proxy, values, strict=True)):
        order = np.argsort(p, kind="stable")
        _, group = np.unique(p[order], return_inverse=True)
        sizes = np.bincount(group)
        shared = (np.bincount(group, weights=chance) / sizes)[group]
        result[row] = float(shared @ v[order])
    return result


@dataclass(frozen=True)
class ScalingForm:
    """The gold score's gain over the start as a function of d = √KL.

    "best-of-n": d (α − β d); "rl": d (α − β log d) (Gao, Schulman and Hilton 2022, arXiv:2210.10760).

    Attributes:
        form: Which.
        alpha, beta: Its coefficients.
        r2: Share of the gain's variance that it explains.
        turn_over: The d from which more optimisation lowers the gold score; inf where it never does.
    """

    form: Form
    alpha: float
    beta: float
    r2: float
    turn_over: float

    def __call__(self, distance: Array) -> Array:
        """Return the gain at `distance`, (n,), of non-negative d."""
        return np.asarray(self.alpha * distance - self.beta * _bend(distance, self.form), np.float64)


def fit_scaling_form(distance: Sequence[float] | Array, gain: Sequence[float] | Array, form: Form) -> ScalingForm:
    """Fit one of the two forms by least squares.

    Args:
        distance: d = √KL, KL in nats per text, (n,), at least two different ones above 0.
        gain: Gold score minus that at d = 0, (n,).
        form: "best-of-n" or "rl".
    """
    d, y = np.asarray(distance, np.float64), np.asarray(gain, np.float64)
    if form not in ("best-of-n", "rl"):
        raise InvalidArgumentError(f"form must be best-of-n or rl, got {form!r}")
    if len(np.unique(d[d > 0])) < 2:
        raise InvalidArgumentError("a form of two coefficients needs at least two distances above 0")
    columns = np.stack([d, -_bend(d, form)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, y, rcond=None)
    left = float(((y - columns @ [alpha, beta]) ** 2).sum())
    whole = float(((y - y.mean()) ** 2).sum())
    if beta <= 0:
        turn_over = math.inf
    elif form == "best-of-n":
        turn_over = max(0.0, float(alpha / (2 * beta)))
    else:
        turn_over = math.exp(min(700.0, alpha / beta - 1))
    return ScalingForm(form, float(alpha), float(beta), 1 - left / whole if whole > 0 else math.nan, turn_over)


def _bend(distance: Array, form: Form) -> Array:
    """Return d² or d log d (0 at d = 0)."""
    if form == "best-of-n":
        return distance**2
    return np.asarray(distance * np.log(np.where(distance > 0, distance, 1.0)), np.float64)
