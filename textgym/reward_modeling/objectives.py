"""Objectives: how judgements of one kind become targets, a loss, and - for a finished model - scores inside a declared range."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgym.classification import classification
from textgym.errors import InvalidArgumentError
from textgym.reward_modeling import losses
from textgym.reward_modeling.data.judgements import JudgementSet, LabelledText, PreferencePair, RatedText
from textgym.reward_modeling.metrics import Metrics, agreement, area_under_curve
from textgym.reward_modeling.reward_forms import Form, check_form, reward_of

Targets = dict[str, Tensor]
WITHOUT_MARGINS = "leave them out by --set-loss margins=false (in Python: FitSettings(loss={'margins': False}))"
POLICY, EXPERT = "policy", "expert"  # the classes of a discriminator


class Objective(nn.Module, ABC):
    """One loss with all that belongs to it.

    Its learnt numbers (thresholds, how common ties are) are parameters or buffers, so they are trained and saved with the scorer.

    Attributes:
        name: As on the command line.
        kind: Of the judgements it fits.
        n_outputs: Numbers it wants from the scorer for each text.
        low, high: The range of `score`.
        score_columns: The outputs that make the score.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    score_columns: ClassVar[slice] = slice(None)
    n_outputs: int
    low: float
    high: float

    @classmethod
    @abstractmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "Objective":
        """Return an objective that suits the training judgements."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew, as plain data."""

    def texts(self, items: Sequence[Any]) -> list[str]:
        """Return the texts to be scored, (m,)."""
        return [item.prompt + item.text for item in items]

    @abstractmethod
    def worths(self, items: Sequence[Any]) -> NDArray[np.float64]:
        """Return what the judgements say of each of `texts`, (m, k): rating, class or having been chosen, in numbers whose means compare."""

    @abstractmethod
    def targets(self, items: Sequence[Any]) -> Targets:
        """Return what is compared with the outputs, every tensor (len(items), ...)."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the loss of the outputs (m, n_outputs) of `texts`, averaged over the items."""

    @abstractmethod
    def score(self, outputs: Tensor, temperature: float | None = None) -> Tensor:
        """Return scores, (m,), inside `low`..`high`; with the temperature of a calibration, where the objective has one."""

    @abstractmethod
    def metrics(self, outputs: Tensor, items: Sequence[Any]) -> Metrics:
        """Return figures by name; the first is what early stopping watches, greater being better."""

    def check_watched(self, items: Sequence[Any]) -> None:
        """Raise where the validation judgements leave the watched figure without a value."""
        del items

    def finish(self, outputs: Tensor) -> None:
        """Take note of the training texts' outputs, (m, n_outputs), after an epoch; for objectives whose scale depends on them."""


class _Rating(Objective):
    """What objectives on ratings share: the scale, and a network that works in standard deviations from the mean."""

    kind = "ratings"
    score_columns = slice(0, 1)

    def __init__(self, low: float, high: float, centre: float, spread: float) -> None:
        super().__init__()
        self.low, self.high, self.centre, self.spread = float(low), float(high), float(centre), float(spread)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew."""
        return {"low": self.low, "high": self.high, "centre": self.centre, "spread": self.spread}

    def worths(self, items: Sequence[RatedText]) -> NDArray[np.float64]:
        """Return the ratings, (n, 1)."""
        return np.array([[item.rating] for item in items], np.float64).reshape(len(items), 1)

    def score(self, outputs: Tensor, temperature: float | None = None) -> Tensor:
        """Return scores inside the range; there is no temperature."""
        del temperature
        return (self.centre + self.spread * outputs[:, 0]).clamp(self.low, self.high)

    def metrics(self, outputs: Tensor, items: Sequence[RatedText]) -> Metrics:
        """Return the validation figures."""
        return agreement(self.score(outputs).double().numpy(), np.array([item.rating for item in items]))


class SquaredError(_Rating):
    """Squared error on mean ratings; scores are clipped to the scale.

    Args:
        low, high: Ends of the rating scale.
        centre, spread: Mean and standard deviation of the training ratings.
    """

    name = "squared-error"
    n_outputs = 1

    @classmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "SquaredError":
        """Return the objective with scale, classes and the like of the training judgements."""
        return cls(**{**_scale(judgements), **settings})

    def targets(self, items: Sequence[RatedText]) -> Targets:
        """Return what is compared with the outputs."""
        return {"rating": _column([(item.rating - self.centre) / self.spread for item in items])}

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        return losses.squared_error(outputs[:, 0], targets["rating"])


class Heteroscedastic(_Rating):
    """Mean and variance of the raters, by the likelihood of their ratings; the score is the mean.

    A text whose single ratings are not known counts by its mean rating alone, with the training texts' average variance.

    Args:
        low, high, centre, spread: As for `SquaredError`.
        rater_variance: Mean variance of the training texts' ratings, in squared units of the scale.
    """

    name = "heteroscedastic"
    n_outputs = 2

    def __init__(self, low: float, high: float, centre: float, spread: float, rater_variance: float) -> None:
        super().__init__(low, high, centre, spread)
        self.rater_variance = float(rater_variance)

    @classmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "Heteroscedastic":
        """Return the objective with scale, classes and the like of the training judgements."""
        known = [np.var(item.ratings) for item in judgements.items if len(item.ratings) > 1]
        if not known:
            raise InvalidArgumentError("the loss 'heteroscedastic' needs single ratings of texts, not only their mean")
        return cls(**{**_scale(judgements), "rater_variance": float(np.mean(known)), **settings})

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew."""
        return {**super().settings(), "rater_variance": self.rater_variance}

    def targets(self, items: Sequence[RatedText]) -> Targets:
        """Return what is compared with the outputs."""
        variances = [np.var(item.ratings) if len(item.ratings) > 1 else self.rater_variance for item in items]
        return {
            "rating": _column([(item.rating - self.centre) / self.spread for item in items]),
            "rater_variance": _column([float(v) / self.spread**2 for v in variances]),
        }

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        return losses.heteroscedastic(outputs[:, 0], outputs[:, 1], targets["rating"], targets["rater_variance"])

    def deviation(self, outputs: Tensor) -> Tensor:
        """Return the predicted standard deviation of a text's raters, (m,), in units of the scale."""
        return self.spread * torch.exp(outputs[:, 1].clamp(-losses.LOG_VARIANCE_LIMIT, losses.LOG_VARIANCE_LIMIT) / 2)


class MultiTask(_Rating):
    """Squared error on the rating and on every aspect, from one shared encoder; the score is the rating's prediction.

    Args:
        low, high, centre, spread: As for `SquaredError`.
        aspects: Name to (mean, standard deviation) of the training ratings.
        aspect_weight: Of each aspect's loss beside the rating's 1.
    """

    name = "multi-task"

    def __init__(
        self, low: float, high: float, centre: float, spread: float, aspects: Mapping[str, Sequence[float]], aspect_weight: float = 1.0
    ) -> None:
        super().__init__(low, high, centre, spread)
        self.aspects = {name: (float(mean), float(deviation)) for name, (mean, deviation) in aspects.items()}
        self.aspect_weight = float(aspect_weight)
        self.n_outputs = 1 + len(aspects)

    @classmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "MultiTask":
        """Return the objective with scale, classes and the like of the training judgements."""
        names = sorted({name for item in judgements.items for name in item.aspects})
        if not names:
            raise InvalidArgumentError("the loss 'multi-task' needs ratings by aspect; these judgements have none")
        aspects = {n: _moments([item.aspects[n] for item in judgements.items if n in item.aspects]) for n in names}
        return cls(**{**_scale(judgements), "aspects": aspects, **settings})

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew."""
        aspects = {name: list(moments) for name, moments in self.aspects.items()}
        return {**super().settings(), "aspects": aspects, "aspect_weight": self.aspect_weight}

    def targets(self, items: Sequence[RatedText]) -> Targets:
        """Return what is compared with the outputs."""
        columns = [[(item.rating - self.centre) / self.spread for item in items]]
        for name, (mean, deviation) in self.aspects.items():
            columns.append([(item.aspects.get(name, math.nan) - mean) / deviation for item in items])
        return {"ratings": torch.tensor(columns, dtype=torch.float32).T}

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        weights = torch.tensor([1.0, *[self.aspect_weight] * len(self.aspects)], device=outputs.device)
        return losses.multi_task(outputs, targets["ratings"], weights)

    def metrics(self, outputs: Tensor, items: Sequence[RatedText]) -> Metrics:
        """Return the validation figures."""
        found = super().metrics(outputs, items)
        for i, (name, (mean, deviation)) in enumerate(self.aspects.items(), 1):
            known = [row for row, item in enumerate(items) if name in item.aspects]
            if len(known) > 1:
                predicted = (mean + deviation * outputs[known, i]).double().numpy()
                found[f"pearson_{name}"] = agreement(predicted, np.array([items[row].aspects[name] for row in known]))["pearson"]
        return found


class _Labels(Objective):
    """What objectives on class labels share."""

    kind = "labels"

    def __init__(self, classes: Sequence[str], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.classes, self.low, self.high = tuple(classes), float(low), float(high)
        if len(self.classes) < 2:
            raise InvalidArgumentError(f"a loss on labels needs at least two classes, got {list(self.classes)}")
        self._rank = {name: i for i, name in enumerate(self.classes)}

    @classmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "_Labels":
        """Return the objective with scale, classes and the like of the training judgements."""
        classes = judgements.classes or tuple(sorted({item.label for item in judgements.items}))
        labels = {item.label for item in judgements.items}
        if len(labels) == 1:
            raise InvalidArgumentError(
                f"all {len(judgements)} training judgements have the label {labels.pop()!r}: a loss needs two classes"
            )
        return cls(**{"classes": classes, **settings})

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew."""
        return {"classes": list(self.classes), "low": self.low, "high": self.high}

    def worths(self, items: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return 1 in the column of a text's class, (n, classes)."""
        own: NDArray[np.float64] = np.eye(len(self.classes))[self.targets(items)["label"].numpy()]
        return own

    def targets(self, items: Sequence[LabelledText]) -> Targets:
        """Return what is compared with the outputs."""
        unknown = {item.label for item in items} - set(self.classes)
        if unknown:
            raise InvalidArgumentError(f"label {sorted(unknown)[0]!r} is none of the classes {', '.join(self.classes)}")
        return {"label": torch.tensor([self._rank[item.label] for item in items], dtype=torch.long)}

    @abstractmethod
    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return log-probabilities of the classes, (m, classes)."""

    def probabilities(self, outputs: Tensor, temperature: float | None = None) -> Tensor:
        """Return the probabilities of the classes, (m, classes); a temperature above 1 evens them out."""
        log_probs = self.log_probs(outputs)
        return log_probs.exp() if temperature is None else (log_probs / temperature).softmax(-1)

    def score(self, outputs: Tensor, temperature: float | None = None) -> Tensor:
        """Return the expected rank of the class, the first at `low`, the last at `high`; with two classes the probability of the second."""
        ranks = torch.linspace(self.low, self.high, len(self.classes), device=outputs.device)
        return (self.probabilities(outputs, temperature) @ ranks).clamp(self.low, self.high)

    def metrics(self, outputs: Tensor, items: Sequence[LabelledText]) -> Metrics:
        """Return the validation figures."""
        found = classification(self.log_probs(outputs).argmax(1).numpy(), self.targets(items)["label"].numpy(), len(self.classes))
        return {name: found[name] for name in ("f1", "accuracy")}


class CrossEntropy(_Labels):
    """Cross-entropy on classes.

    Args:
        classes: Their names; their order is the score's order, from `low` to `high`.
        low, high: Scores of the first and of the last class.
    """

    name = "cross-entropy"

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """One for each class."""
        return len(self.classes)

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return log-probabilities of the classes, (m, classes)."""
        return outputs.log_softmax(-1)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        return losses.cross_entropy(outputs, targets["label"])


class Discrimination(CrossEntropy):
    """Whether an expert wrote a text or a policy did; the score is a reward for writing like the expert.

    Args:
        classes: The policy's label, then the expert's.
        form: What the verdict pays: "log-odds", "positive" or "negative", as `reward_forms.reward_of` says.
        smoothing: Targets are 1 − ε for the right class.
        clip: Log-odds are cut to ± this before.
    """

    name = "discrimination"

    def __init__(
        self, classes: Sequence[str] = (POLICY, EXPERT), form: Form = "log-odds", smoothing: float = 0.0, clip: float = 10.0
    ) -> None:
        check_form(form)
        if len(classes) != 2 or not 0 <= smoothing < 0.5 or not clip > 0:
            raise InvalidArgumentError(
                f"discrimination needs two classes, smoothing from 0 to below 0.5 and clip above 0, got {list(classes)}, {smoothing}, {clip}"
            )
        ends = torch.tensor([-clip, clip])
        low, high = reward_of(ends, form, clip).tolist()
        super().__init__(classes, low, high)
        self.form, self.smoothing, self.clip = form, float(smoothing), float(clip)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew."""
        return {"classes": list(self.classes), "form": self.form, "smoothing": self.smoothing, "clip": self.clip}

    def log_odds(self, outputs: Tensor) -> Tensor:
        """Return log(D / (1 − D)), (m,), of outputs (m, 2)."""
        return outputs[:, 1] - outputs[:, 0]

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        log_odds, is_expert = self.log_odds(outputs), targets["label"] == 1
        theirs, ours = (losses.expert_or_policy(log_odds, side, self.smoothing) for side in (True, False))
        return torch.where(is_expert, theirs, ours).mean()

    def score(self, outputs: Tensor, temperature: float | None = None) -> Tensor:
        """Return the reward of the verdict, (m,)."""
        return reward_of(self.log_odds(outputs) / (temperature or 1.0), self.form, self.clip).clamp(self.low, self.high)

    def check_watched(self, items: Sequence[LabelledText]) -> None:
        """Raise where only one side is there to be told from the other."""
        missing = [name for name in self.classes if all(item.label != name for item in items)]
        if missing:
            raise InvalidArgumentError(
                f"none of the {len(items)} validation texts is of the class {missing[0]!r}, so nothing can be told apart"
            )

    def metrics(self, outputs: Tensor, items: Sequence[LabelledText]) -> Metrics:
        """Return the area under the curve, and the accuracy."""
        log_odds = self.log_odds(outputs).double().numpy()
        is_expert = self.targets(items)["label"].numpy() == 1
        accuracy = float(np.mean((log_odds > 0) == is_expert))
        return {"auc": area_under_curve(log_odds[is_expert], log_odds[~is_expert]), "accuracy": accuracy}


class Ordinal(_Labels):
    """Ordinal cross-entropy on classes with a rank: one latent number and learnt thresholds.

    Args:
        classes: From the lowest rank to the highest.
        low, high: Scores of the first and of the last class.
    """

    name = "ordinal"
    n_outputs = 1

    @classmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "_Labels":
        """Return the objective with the declared classes; raises where nobody declared their rank."""
        if not judgements.classes and "classes" not in settings:
            found = ", ".join(sorted({item.label for item in judgements.items}))
            raise InvalidArgumentError(
                f"the loss 'ordinal' needs the classes' rank: give every row the field `classes`, from the lowest to the highest of {found}"
            )
        return super().for_judgements(judgements, **settings)

    def __init__(self, classes: Sequence[str], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(classes, low, high)
        ranks = torch.arange(1, len(self.classes)) / len(self.classes)
        first = torch.logit(ranks)  # equally many in each class, for a latent number of 0
        self.first = nn.Parameter(first[:1])
        self.log_steps = nn.Parameter((first[1:] - first[:-1]).log())  # steps between thresholds stay positive

    @property
    def thresholds(self) -> Tensor:
        """The thresholds, (classes - 1,), increasing."""
        return torch.cat([self.first, self.first + self.log_steps.exp().cumsum(0)])

    def worths(self, items: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the ranks of the classes, (n, 1)."""
        return self.targets(items)["label"].numpy().astype(np.float64)[:, None]

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return log-probabilities of the classes, (m, classes)."""
        return losses.ordinal_log_probs(outputs[:, 0], self.thresholds)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        return losses.ordinal_cross_entropy(outputs[:, 0], self.thresholds, targets["label"])


class BradleyTerry(Objective):
    """Preference pairs: the chosen text is to score higher.

    Pairs fix differences of the latent score alone. The reward's range comes from squashing: `low + (high - low) sigmoid((latent - centre) /
    spread)`, centre and spread being mean and standard deviation over the training texts. With a calibration its temperature takes the place
    of the spread, and the squashed score is the probability that the text is preferred to one of average worth.

    Args:
        ties: "davidson" or "rao-kupper", where the pairs have ties.
        margins: Use the pairs' margins where they have one.
        margin_scale: Nats of latent score per unit of margin.
        low, high: Ends of the squashed score.
    """

    name = "bradley-terry"
    kind = "pairs"
    n_outputs = 1
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        ties: str = "davidson",
        margins: bool = True,
        margin_scale: float = 1.0,
        low: float = 0.0,
        high: float = 1.0,
        has_ties: bool = False,
    ) -> None:
        super().__init__()
        if ties not in ("davidson", "rao-kupper"):
            raise InvalidArgumentError(f'ties must be "davidson" or "rao-kupper", got {ties!r}')
        self.ties, self.margins, self.margin_scale = ties, bool(margins), float(margin_scale)
        self.low, self.high, self.has_ties = float(low), float(high), bool(has_ties)
        self.tie_parameter = nn.Parameter(torch.zeros(()), requires_grad=self.has_ties)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @classmethod
    def for_judgements(cls, judgements: "JudgementSet[Any]", **settings: Any) -> "BradleyTerry":
        """Return the objective with scale, classes and the like of the training judgements."""
        made = cls(**{"has_ties": any(item.tie for item in judgements.items), **settings})
        if made.ties == "rao-kupper" and made.has_ties and made.margins and any(item.margin for item in judgements.items if not item.tie):
            raise InvalidArgumentError(
                f"ties=rao-kupper knows no margins, and the pairs have some: {WITHOUT_MARGINS}, or take ties=davidson"
            )
        return made

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make it anew."""
        return {name: getattr(self, name) for name in ("ties", "margins", "margin_scale", "low", "high", "has_ties")}

    def texts(self, items: Sequence[PreferencePair]) -> list[str]:
        """Return all chosen texts, then all rejected ones, (2 len(items),)."""
        return [item.prompt + item.chosen for item in items] + [item.prompt + item.rejected for item in items]

    def worths(self, items: Sequence[PreferencePair]) -> NDArray[np.float64]:
        """Return 1 for chosen texts, 0 for rejected ones, a half for both of a tie, (2 n, 1)."""
        won = np.array([0.5 if item.tie else 1.0 for item in items])
        return np.concatenate([won, 1 - won])[:, None]

    def targets(self, items: Sequence[PreferencePair]) -> Targets:
        """Return what is compared with the outputs."""
        margins = [(item.margin or 0.0) * self.margin_scale if self.margins else 0.0 for item in items]
        return {"tie": torch.tensor([item.tie for item in items]), "margin": _column(margins)}

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Return the mean loss over the items."""
        chosen, rejected = outputs[:, 0].chunk(2)
        if not self.has_ties:
            return losses.bradley_terry(chosen, rejected, targets["margin"])
        if self.ties == "davidson":
            return losses.davidson(chosen, rejected, targets["tie"], self.tie_parameter, targets["margin"])
        return losses.rao_kupper(chosen, rejected, targets["tie"], nn.functional.softplus(self.tie_parameter))

    def log_odds(self, gaps: Tensor) -> Tensor:
        """Return the log-odds that the first of two texts is preferred if one is, given how far its latent score is ahead, of any shape.

        By Bradley and Terry, and after Davidson, that is the gap itself; after Rao and Kupper ties take more from the loser.
        """
        if self.ties == "davidson" or not self.has_ties:
            return gaps
        threshold = nn.functional.softplus(self.tie_parameter)
        return nn.functional.logsigmoid(gaps - threshold) - nn.functional.logsigmoid(-gaps - threshold)

    def finish(self, outputs: Tensor) -> None:
        """Set the scale of `score` by the training texts."""
        self.centre.copy_(outputs[:, 0].mean())
        self.spread.copy_(outputs[:, 0].std().clamp_min(1e-6) if len(outputs) > 1 else torch.ones(()))

    def score(self, outputs: Tensor, temperature: float | None = None) -> Tensor:
        """Return scores inside the range."""
        above = outputs[:, 0] - self.centre
        squashed = torch.sigmoid(above / self.spread if temperature is None else self.log_odds(above) / temperature)
        return self.low + (self.high - self.low) * squashed

    def check_watched(self, items: Sequence[PreferencePair]) -> None:
        """Raise where every pair is a tie: no model is then better than another."""
        if all(item.tie for item in items):
            raise InvalidArgumentError(
                f"all {len(items)} validation pairs are ties, so no epoch is better than another: validate on pairs that are decided"
            )

    def metrics(self, outputs: Tensor, items: Sequence[PreferencePair]) -> Metrics:
        """Return the share of pairs ranked as judged (equal scores count half; ties are left out), and the loss."""
        chosen, rejected = outputs[:, 0].chunk(2)
        targets = self.targets(items)
        decided = ~targets["tie"]
        right = (torch.sign(chosen - rejected) + 1)[decided] / 2
        accuracy = float(right.mean()) if len(right) else math.nan
        return {"accuracy": accuracy, "loss": float(self.loss(outputs, targets))}


OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective
    for objective in (SquaredError, BradleyTerry, CrossEntropy, Discrimination, Ordinal, Heteroscedastic, MultiTask)
}


def _scale(judgements: "JudgementSet[Any]") -> dict[str, float]:
    ratings = [item.rating for item in judgements.items]
    centre, spread = _moments(ratings)
    low = min(ratings) if judgements.low is None else judgements.low
    high = max(ratings) if judgements.high is None else judgements.high
    if not low < high:
        raise InvalidArgumentError(f"the ratings go from {low:g} to {high:g}: a reward needs at least two different ones")
    return {"low": low, "high": high, "centre": centre, "spread": spread}


def _moments(values: Sequence[float]) -> tuple[float, float]:
    array: NDArray[np.float64] = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std()) or 1.0


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
