"""Agreement between raters: Krippendorff's alpha (Krippendorff 2004, Content Analysis, ch. 11) of what they judged in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textgym.errors import MissingExtraError
from textgym.rating.collection import Mode
from textgym.rating.store import Judgement


@dataclass(frozen=True)
class Agreement:
    """How far raters agree.

    Attributes:
        alpha: At most 1 (perfect), 0 for chance; None where it is not defined: nothing judged by two, or only one value ever given.
        level: Differences between ratings count by their square ("interval"); preferences are equal or not ("nominal"), without margins.
        n_items: Items judged by two raters or more.
    """

    alpha: float | None
    level: Literal["interval", "nominal"]
    n_items: int

    def __str__(self) -> str:
        if self.alpha is None:
            reason = "all the same" if self.n_items else "no item judged by two raters yet"
            return f"agreement: not defined ({reason})"
        items = f"{self.n_items} item{'' if self.n_items == 1 else 's'}"
        return f"agreement: Krippendorff's alpha {self.alpha:.2f} ({self.level}; {items} judged by two raters or more)"


def agreement(judgements: Sequence[Judgement], mode: Mode) -> Agreement:
    """Return the agreement of all raters, each item by whoever judged it."""
    try:
        import krippendorff
    except ModuleNotFoundError:
        raise MissingExtraError("agreement between raters", "rate") from None
    raters = {name: i for i, name in enumerate(dict.fromkeys(j.rater for j in judgements))}
    items = {name: i for i, name in enumerate(dict.fromkeys(j.item for j in judgements))}
    table = np.full((len(raters), len(items)), np.nan)  # (raters, items)
    for judgement in judgements:
        table[raters[judgement.rater], items[judgement.item]] = judgement.value if mode == "ratings" else np.sign(judgement.value)
    shared = table[:, np.isfinite(table).sum(0) >= 2]  # a single judgement has nothing to agree with
    level: Literal["interval", "nominal"] = "interval" if mode == "ratings" else "nominal"
    if len(np.unique(shared[np.isfinite(shared)])) < 2:
        return Agreement(None, level, shared.shape[1])
    return Agreement(float(krippendorff.alpha(reliability_data=shared, level_of_measurement=level)), level, shared.shape[1])
