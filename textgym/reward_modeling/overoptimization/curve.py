"""Curve: gold and proxy scores under growing optimisation pressure, seed by seed, and whether the gold score turns over."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.experiments.statistics import Estimate
from textgym.reward_modeling.overoptimization.scaling_forms import Form, ScalingForm, fit_scaling_form

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One proxy or ensemble under growing optimisation pressure.

    Where the gold score is highest is chosen for each seed by the *other* seeds (`peaks`). Chosen on the scores that are then subtracted
    from, even noise would rise to its peak and fall from it; so chosen, a curve of noise does neither on average.

    Attributes:
        size: Training texts behind it.
        how: "single" or how the ensemble is combined.
        kl: Nats per text from the untrained model, (seeds, points); at one point about the same for all seeds.
        proxy, gold: Mean scores, (seeds, points); the first point is the untrained model.
        form: Fitted to the gold score's gain, averaged over the seeds.
    """

    size: int
    how: str
    kl: Array
    proxy: Array
    gold: Array
    form: ScalingForm

    @property
    def peak(self) -> int:
        """The point at which the gold score, averaged over all seeds, is highest."""
        return int(self.gold.mean(0).argmax())

    @property
    def peaks(self) -> NDArray[np.intp]:
        """For each seed the point at which the mean gold score of the other seeds is highest, (seeds,)."""
        return np.asarray((self.gold.sum(0) - self.gold).argmax(1), np.intp)

    @property
    def rise(self) -> Estimate:
        """Gold score at `peaks` minus that at the start, over the seeds."""
        return over_seeds(self._at_peaks(self.gold) - self.gold[:, 0])

    @property
    def fall(self) -> Estimate:
        """Gold score at `peaks` minus that at the end, over the seeds."""
        return over_seeds(self._at_peaks(self.gold) - self.gold[:, -1])

    @property
    def proxy_gain(self) -> Estimate:
        """Proxy's score at the end minus that at `peaks`, over the seeds: what the optimiser was told meanwhile."""
        return over_seeds(self.proxy[:, -1] - self._at_peaks(self.proxy))

    @property
    def turns_over(self) -> bool:
        """Whether, on average over the seeds, the gold score first rises, then falls while the proxy goes on rising."""
        return all(part.value > 0 for part in (self.rise, self.fall, self.proxy_gain))

    @property
    def surely_turns_over(self) -> bool:
        """Whether rise, fall and the proxy's further gain are each told from none: their 95 % intervals lie above 0."""
        return all(part.low > 0 for part in (self.rise, self.fall, self.proxy_gain))

    @property
    def kl_at_peaks(self) -> Array:
        """KL at which each seed's own gold score is highest, (seeds,); the last point's where it never falls."""
        return np.asarray(self.kl[np.arange(len(self.kl)), self.gold.argmax(1)], np.float64)

    @property
    def kl_at_peak(self) -> Estimate:
        """KL at which the gold score is highest, over the seeds."""
        return over_seeds(self.kl_at_peaks)

    @property
    def end(self) -> Estimate:
        """Gold score at the end, over the seeds."""
        return over_seeds(self.gold[:, -1])

    def _at_peaks(self, scores: Array) -> Array:
        return np.asarray(scores[np.arange(len(scores)), self.peaks], np.float64)


def over_seeds(values: Array) -> Estimate:
    """Return the mean over seeds, (seeds,), with its 95 % Student interval."""
    from scipy.stats import t

    mean, n = float(values.mean()), len(values)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Estimate(mean, mean - half, mean + half)


def at_levels(levels: Array, kl: Array, *scores: Array) -> Array:
    """Return what a run's measurements say at given KLs, (1 + len(scores), levels): the KL itself, then each of the scores.

    Between two measurements each is a straight line over √KL. A level that a run did not reach has its last measurement, KL included.

    Args:
        levels: Nats per text, ascending, (levels,).
        kl: Nats per text of the measurements in order, 0 first, (n,). Where it falls back, the highest so far stands for it.
        scores: Mean scores, (n,) each.
    """
    reached = np.maximum.accumulate(kl)
    read = np.minimum(levels, reached[-1])
    last = np.append(np.diff(reached) > 0, True)  # of measurements at one KL the last, so that they ascend
    return np.stack([read, *(np.interp(np.sqrt(read), np.sqrt(reached[last]), values[last]) for values in scores)])


def curve_with_form(size: int, how: str, kl: Array, proxy: Array, gold: Array, form: Form) -> Curve:
    """Return the curve with `form` fitted to the mean gain of its gold score; its coefficients are nan where the policy hardly moved."""
    distance, gain = np.sqrt(kl.mean(0)), (gold - gold[:, :1]).mean(0)
    if len(np.unique(distance[distance > 0])) < 2:
        return Curve(size, how, kl, proxy, gold, ScalingForm(form, math.nan, math.nan, math.nan, math.inf))
    return Curve(size, how, kl, proxy, gold, fit_scaling_form(distance, gain, form))
