"""Distillation: training ratings softened by a teacher's scores, beside invented texts that the teacher alone rates."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.invented_texts import check_kinds, invented_texts
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.models.fitted_ensemble import read_fitted

CHUNK = 512  # texts between two reports of progress


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a small reward model learns from a large one.

    Hinton et al. (2015), "Distilling the Knowledge in a Neural Network", arXiv:1503.02531; texts made up for the teacher: Tang et al.
    (2019), "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", arXiv:1903.12136.

    Attributes:
        teacher: Folder of a fitted reward model, or of an ensemble, on the same rating scale.
        share: Of the teacher's score in the target of a text that people rated, 0..1. The squared errors to both, weighted by `share` and
            1 - `share`, differ from the squared error to this mean only by a constant.
        invented: Number of texts made up beside them, whose target is the teacher's score alone.
        kinds: What they are, in equal shares: "spans" of training texts, "recombined" from them, "sampled" from a language model.
        model: The language model that writes the sampled ones.
    """

    teacher: str
    share: float = 0.5
    invented: int = 0
    kinds: tuple[str, ...] = ("spans",)
    model: str = "reviews"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and 0 <= self.share <= 1):
            raise InvalidArgumentError(f"share must be between 0 and 1, got {self.share!r}")
        check_kinds(self.kinds)
        if isinstance(self.invented, bool) or not isinstance(self.invented, int) or self.invented < 0:
            raise InvalidArgumentError(f"invented must be a whole number of at least 0, got {self.invented!r}")


def distilled(
    judgements: "JudgementSet[Any]",
    distillation: Distillation,
    seed: int = 0,
    device: str = "cpu",
    show: Callable[[int, int, str], None] | None = None,
) -> "tuple[JudgementSet[Any], str]":
    """Return training ratings with the teacher's part in each, followed by the invented texts; and the teacher's version.

    Single raters' values go, for their mean is no longer the rating; aspects stay people's, and an invented text has none.

    Args:
        judgements: The training ratings.
        distillation: The teacher, and how to learn from it.
        seed: Of the invented texts.
        device: Where the teacher runs.
        show: Progress: called with (texts rated, of so many, note).

    Raises:
        InvalidArgumentError: The judgements are no ratings, or the teacher's scale is another.
    """
    if judgements.kind != "ratings":
        raise InvalidArgumentError(f"a teacher's scores are ratings, the judgements are {judgements.kind}: distil ratings")
    teacher = read_fitted(distillation.teacher, device)
    low, high = judgements.low, judgements.high
    if low is not None and high is not None and (teacher.low, teacher.high) != (low, high):
        scales = f"{teacher.low:g}..{teacher.high:g}, the ratings from {low:g}..{high:g}"
        raise InvalidArgumentError(f"the scores of the teacher {distillation.teacher!r} are from {scales}: fit the teacher on such ratings")
    training: list[RatedText] = list(judgements.items)
    if show is not None:
        show(0, len(training) + distillation.invented, "inventing texts")
    texts = [item.prompt + item.text for item in training]
    invented = invented_texts(texts, distillation.invented, distillation.kinds, distillation.model, seed)
    every = (texts if distillation.share else []) + invented
    scores: list[float] = []
    for start in range(0, len(every), CHUNK):
        scores += teacher.score_texts(every[start : start + CHUNK]).tolist()
        if show is not None:
            show(len(scores), len(every), "the teacher rates")
    share = distillation.share
    if share:
        training = [
            replace(item, rating=(1 - share) * item.rating + share * score, ratings=(), raters=())
            for item, score in zip(training, scores, strict=False)
        ]
    new = [
        RatedText(id=f"invented-{i}", text=text, rating=score, split="train", metadata={"augmented": "invented"})
        for i, (text, score) in enumerate(zip(invented, scores[len(every) - len(invented) :], strict=True), 1)
    ]
    return replace(judgements, items=(*training, *new)), teacher.version
