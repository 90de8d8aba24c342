"""Fit: a scorer and an objective are fitted to the training judgements and watched on the validation judgements."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textgym.device import check_device
from textgym.errors import InvalidArgumentError, UnknownNameError
from textgym.plugin_manager import check_options
from textgym.reward_modeling.data.judgements import JudgementSet
from textgym.reward_modeling.data.splits import assign_splits
from textgym.reward_modeling.fitting.contrastive import MomentumEncoder, contrastive_loss, pretrain
from textgym.reward_modeling.fitting.distillation import Distillation, distilled
from textgym.reward_modeling.losses import length_correlation
from textgym.reward_modeling.metrics import Metrics
from textgym.reward_modeling.models.calibration import Calibration, check_enough, fit_calibration
from textgym.reward_modeling.models.fitted_reward import FittedReward, evaluate, write_history
from textgym.reward_modeling.models.length_debias import LengthDebias, log_words
from textgym.reward_modeling.objectives import OBJECTIVES, Objective
from textgym.reward_modeling.reward_folder import refuse_foreign
from textgym.reward_modeling.scorers import scorer_class
from textgym.reward_modeling.scorers.features import batches_by_length
from textgym.reward_modeling.scorers.scorer import Scorer
from textgym.reward_modeling.training_texts import ids_hash, keys

CHUNK = 32  # batches that are sorted by length together: little padding, and still a random order
N_SCALE_TEXTS = 1000  # training texts on which the scale of a reward from pairs is set
LEAST_OF_SPLIT = 2  # judgements that training and validation each need
MOST_DRAWS = 50  # of splits by themselves, before it is the judgements' fault
SPLITS = ("train", "validation", "test", "")
N_LENGTH_TEXTS = 4000  # training texts on which a length's share is estimated

Show = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a reward model is fitted; None leaves a value to the scorer.

    Attributes:
        seed: Of initial weights, order and dropout.
        epochs: At most so many passes over the training judgements.
        batch_size: Judgements per step.
        learning_rate: AdamW's highest rate: it rises over the first steps, then falls linearly to nothing.
        weight_decay: Of AdamW.
        warmup: Share of the steps over which the rate rises.
        patience: Epochs without a better validation figure before fitting stops.
        max_minutes: Fitting stops before an epoch that would end after so many minutes; None for no limit.
        pretrain: "" for none, or "simcse" or "moco": the encoder first learns to tell the bare training texts apart.
        pretrain_steps: Of that.
        contrastive: "" for none, or "simcse" or "moco": an auxiliary contrastive term beside the loss.
        contrastive_coef: Its weight.
        length_debias: "" for none; "residual" takes off what the outputs owe to the logarithm of the length, estimated on training texts;
            "penalty" adds `length_coef` · (squared correlation of output and length over the batch) to the loss.
        length_coef: Weight of "penalty".
        calibrate: Whether the scores are calibrated on the validation judgements: by isotonic regression for ratings, by a temperature for
            labels and pairs.
        distillation: A teacher to learn from beside the judgements; None for none.
        scorer: Settings of the scorer.
        loss: Settings of the loss.
    """

    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.06
    patience: int = 3
    max_minutes: float | None = None
    pretrain: str = ""
    pretrain_steps: int = 200
    contrastive: str = ""
    contrastive_coef: float = 0.1
    length_debias: str = ""
    length_coef: float = 1.0
    calibrate: bool = False
    distillation: Distillation | None = None
    scorer: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "pretrain_steps"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("learning_rate", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidArgumentError(f"{name} must be above 0, got {value!r}")
        if self.length_debias not in ("", "residual", "penalty"):
            raise InvalidArgumentError(f'length_debias must be "", "residual" or "penalty", got {self.length_debias!r}')
        if not (math.isfinite(self.length_coef) and self.length_coef >= 0):
            raise InvalidArgumentError(f"length_coef must be at least 0, got {self.length_coef!r}")
        for name in ("contrastive", "pretrain"):
            if getattr(self, name) not in ("", "simcse", "moco"):
                raise InvalidArgumentError(f'{name} must be "", "simcse" or "moco", got {getattr(self, name)!r}')

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "FitSettings":
        """Return the settings that `dataclasses.asdict` made plain, as a model's description records them; unknown names are passed over."""
        known = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
        if known.get("distillation") is not None:
            teacher = dict(known["distillation"])
            known["distillation"] = Distillation(**{**teacher, "kinds": tuple(teacher["kinds"])})
        return cls(**known)


@dataclass(frozen=True)
class FitResult:
    """What came of fitting.

    Attributes:
        reward: The model of the best epoch.
        history: Metrics of each epoch: "epoch", "seconds", "train_loss", and the validation figures.
        best: The entry of the best epoch.
    """

    reward: FittedReward
    history: tuple[Metrics, ...]
    best: Metrics


def fit_reward_model(
    judgements: "JudgementSet[Any]",
    out: str | Path | None = None,
    *,
    scorer: str = "embedding",
    loss: str = "squared-error",
    settings: FitSettings | None = None,
    device: str = "cpu",
    show: Show | None = None,
    report: Callable[[Metrics], None] | None = None,
    prepared_scorer: Scorer | None = None,
) -> FitResult:
    """Fit a reward model to judgements.

    Args:
        judgements: With training judgements, and validation ones; where no split was drawn, a tenth validates, as `assign_splits` draws it.
            Test judgements are never used.
        out: Folder of the model. It is written whenever the validation figure improves, and every epoch's figures before they are
            reported, so an interrupted run keeps all that was shown. None keeps the model in memory.
        scorer: "tfidf", "compact", "embedding", "mlp", "lm-linear" or "transformer".
        loss: "squared-error", "heteroscedastic", "multi-task" (ratings); "cross-entropy", "ordinal" (labels); "bradley-terry" (pairs).
        settings: Everything else.
        device: Where the scorer runs.
        show: Progress: called with (judgements done, of so many, note).
        report: Called with each epoch's figures.
        prepared_scorer: A scorer to go on from (pre-trained); it is changed in place.

    Returns:
        The reward model of the epoch with the best validation figure (Pearson, macro F1 or accuracy).

    Raises:
        UnknownNameError: No such scorer or loss.
        InvalidArgumentError: The judgements or settings do not fit.
    """
    settings = settings or FitSettings()
    check_loss(loss, judgements.kind)
    check_device(device)
    if out is not None:
        refuse_foreign(Path(out))
    train, validation = train_and_validation(judgements)
    objective = objective_for(loss, train, settings)
    objective.check_watched(validation.items)
    if settings.calibrate:
        check_enough(validation.items)
    torch.manual_seed(settings.seed)  # torch's initialisers and dropout draw from the global generator alone
    model = prepared_scorer
    if model is None:
        kind = scorer_class(scorer)
        options = {**settings.scorer, **({"device": device} if not kind.closed_form else {})}
        check_options(f"scorer {scorer!r}", kind, options, given=1)
        model = kind(objective.n_outputs, **options)
    if model.n_outputs != objective.n_outputs:
        raise InvalidArgumentError(f"the loss {loss!r} needs a scorer with {objective.n_outputs} outputs, this one has {model.n_outputs}")
    if model.closed_form:
        _check_closed_form(scorer, settings)
    described: dict[str, Any] = {"train": len(train), "validation": len(validation), "train_ids_sha256": ids_hash(train.items)}
    known = keys(train.items)
    if settings.distillation is not None:
        train, described["teacher_version"] = distilled(train, settings.distillation, settings.seed, device, show)
    if settings.pretrain:
        steps = settings.pretrain_steps
        pretrain(model, objective.texts(train.items), method=settings.pretrain, steps=steps, seed=settings.seed, show=show)
    folder = Path(out) if out is not None else None
    run = _Run(model, objective.to(device), train.items, validation.items, described, known, settings, device, folder, report)
    return run.solve() if model.closed_form else run.train(show)


def check_loss(loss: str, kind: str) -> None:
    """Raise for an unknown loss, or one for another kind of judgements."""
    if loss not in OBJECTIVES:
        raise UnknownNameError("loss", loss, OBJECTIVES)
    if OBJECTIVES[loss].kind != kind:
        fitting = ", ".join(name for name, objective in OBJECTIVES.items() if objective.kind == kind) or "none"
        raise InvalidArgumentError(f"the loss {loss!r} is for {OBJECTIVES[loss].kind}, the judgements are {kind}: use {fitting}")


def objective_for(loss: str, train: "JudgementSet[Any]", settings: FitSettings) -> Objective:
    """Return the objective of a known loss for the training judgements; raises where they or the loss's settings do not suit it."""
    check_options(f"loss {loss!r}", OBJECTIVES[loss], settings.loss)
    return OBJECTIVES[loss].for_judgements(train, **settings.loss)


def _check_closed_form(scorer: str, settings: FitSettings) -> None:
    """Raise for settings of a fit step by step, which a scorer that is solved at once would pass over."""
    if settings.length_debias == "penalty":
        raise InvalidArgumentError(f"length_debias 'penalty' is part of a loss, and {scorer!r} is solved at once: use 'residual'")
    given = [name for name in ("epochs", "batch_size", "learning_rate", "pretrain", "contrastive") if getattr(settings, name)]
    if given:
        raise InvalidArgumentError(f"{scorer!r} is solved at once and takes no {', '.join(given)}: leave it out, or take another scorer")


class _Run:
    """One fit under way: what both ways of fitting share - evaluation, the record of epochs, the best model."""

    def __init__(
        self,
        scorer: Scorer,
        objective: Objective,
        train: Sequence[Any],
        validation: Sequence[Any],
        described: Mapping[str, Any],
        known: frozenset[str],
        settings: FitSettings,
        device: str,
        out: Path | None,
        report: Callable[[Metrics], None] | None,
    ) -> None:
        self.scorer, self.objective, self.items, self.held_out = scorer, objective, train, validation
        self.described, self.known = described, known
        self.settings, self.device, self.out, self.report = settings, device, out, report
        self.history: list[Metrics] = []
        self.best: Metrics | None = None
        self.best_state: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
        self.best_parts: tuple[LengthDebias | None, Calibration | None] = (None, None)
        self.texts, self.held_out_texts = objective.texts(train), objective.texts(validation)
        self.started = time.perf_counter()

    def solve(self) -> FitResult:
        """Fit a scorer that has a closed form."""
        self.scorer.solve(self.texts, self.objective, self.items, self.settings.seed)
        prepared = self.scorer.prepare(self.texts)
        outputs = evaluate(self.scorer, prepared)
        loss = self.objective.loss(outputs, self.objective.targets(self.items))
        self._end_epoch(1, float(loss.detach()), prepared, self.scorer.prepare(self.held_out_texts))
        return self._finish()

    def train(self, show: Show | None) -> FitResult:
        """Fit a scorer by gradient steps."""
        settings, scorer, n = self.settings, self.scorer, len(self.items)
        epochs = settings.epochs or scorer.epochs
        batch_size = min(n, settings.batch_size or scorer.batch_size)
        if show is not None:
            show(0, n * epochs, "reading the texts")
        prepared = scorer.begin(self.texts, self.objective.worths(self.items))
        watched = scorer.prepare(self.held_out_texts)
        first_places: dict[str, int] = {}
        numbers = [first_places.setdefault(text, place) for place, text in enumerate(self.texts)]
        lengths = torch.from_numpy(log_words(self.texts)).float()
        per_item = len(prepared) // n  # 2 for pairs
        targets = self.objective.targets(self.items)
        groups = scorer.parameter_groups(settings.learning_rate or scorer.learning_rate)
        own = [p for p in self.objective.parameters() if p.requires_grad]
        if own:
            groups.append({"params": own, "lr": max(settings.learning_rate or scorer.learning_rate, 1e-2), "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)  # a quarter faster than the loop, for MiniLM
        total = epochs * math.ceil(n / batch_size)
        rising = max(1, round(settings.warmup * total))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: min((s + 1) / rising, max(0.0, (total - s) / max(1, total - rising)))
        )
        slow = MomentumEncoder(scorer) if settings.contrastive == "moco" else None
        generator = torch.Generator().manual_seed(settings.seed)
        sizes = [max(scorer.length(entry) for entry in prepared[row::n]) for row in range(n)]
        done, waited = 0, 0
        for epoch in range(1, epochs + 1):
            scorer.train()
            self.objective.train()
            summed = 0.0
            for rows in _shuffled(sizes, batch_size, generator):
                places = [row + k * n for k in range(per_item) for row in rows]
                batch = [prepared[place] for place in places]
                aims = {name: values[rows].to(self.device) for name, values in targets.items()}
                outputs = scorer(batch)
                loss = self.objective.loss(outputs, aims)
                if not torch.isfinite(loss):
                    raise InvalidArgumentError(f"the loss became {float(loss.detach())} in epoch {epoch}: lower the learning rate")
                whole = loss + scorer.regularisation()
                if settings.length_debias == "penalty" and len(batch) > 1:
                    scored = outputs[:, self.objective.score_columns]
                    whole = whole + settings.length_coef * length_correlation(scored, lengths[places].to(scored.device))
                if settings.contrastive and len(batch) > 1:
                    whole = whole + settings.contrastive_coef * contrastive_loss(
                        scorer, batch, slow, numbers=[numbers[place] for place in places]
                    )
                optimizer.zero_grad()
                whole.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                value = float(loss.detach())
                summed, done = summed + value * len(rows), done + len(rows)
                if show is not None:
                    show(done, n * epochs, f"epoch {epoch}  loss {value:.3f}")
            waited = 0 if self._end_epoch(epoch, summed / n, prepared, watched) else waited + 1
            minutes = (time.perf_counter() - self.started) / 60
            if waited >= settings.patience or (settings.max_minutes and minutes * (epoch + 1) / epoch > settings.max_minutes):
                break
        return self._finish()

    def _end_epoch(self, epoch: int, loss: float, prepared: Sequence[Any], watched: Sequence[Any]) -> bool:
        """Evaluate, keep the model if it is the best, put both on disk, then report; return whether it was the best."""
        residual, debias, calibration = self.settings.length_debias == "residual", None, None
        with torch.no_grad():
            objective = self.objective.cpu()
            found = evaluate(self.scorer, watched)
            if not bool(torch.isfinite(found).all()):
                raise InvalidArgumentError(f"the scorer's outputs are no longer finite after epoch {epoch}: lower the learning rate")
            if residual or type(objective).finish is not Objective.finish:
                stride = max(1, len(prepared) // (N_LENGTH_TEXTS if residual else N_SCALE_TEXTS))
                seen, texts = evaluate(self.scorer, prepared[::stride]), self.texts[::stride]
                if residual:
                    debias = LengthDebias.fit(seen, texts, objective.score_columns)
                    seen, found = debias.applied(seen, texts), debias.applied(found, self.held_out_texts)
                objective.finish(seen)
            metrics = objective.metrics(found, self.held_out)
            if self.settings.calibrate:
                calibration = fit_calibration(objective, found, self.held_out)
            objective.to(self.device)
        entry = {"epoch": epoch, "seconds": round(time.perf_counter() - self.started, 2), "train_loss": loss, **metrics}
        self.history.append(entry)
        watch = next(iter(metrics))
        better = self.best is None or entry[watch] > self.best[watch]
        if better:
            self.best = entry
            self.best_state = (_copy(self.scorer.state()), _copy(self.objective.state_dict()))
            self.best_parts = (debias, calibration)
        if self.out is not None:
            if better:
                self._reward(entry).save(self.out, self.history, finished=False)
                self.objective.to(self.device)
            else:
                write_history(self.out, self.history, finished=False)
        if self.report is not None:
            self.report(entry)
        return better

    def _finish(self) -> FitResult:
        if self.best is None or self.best_state is None:
            raise AssertionError("no epoch ended")
        self.scorer.restore(self.best_state[0])
        self.objective.load_state_dict(self.best_state[1])
        reward = self._reward(self.best)
        if self.out is not None:
            write_history(self.out, self.history, finished=True)
        return FitResult(reward, tuple(self.history), self.best)

    def _reward(self, entry: Metrics) -> FittedReward:
        description = {
            "metrics": {name: value for name, value in entry.items() if math.isfinite(value)},
            "fit": {
                **asdict(replace(self.settings, scorer={}, loss={})),
                "scorer": dict(self.settings.scorer),
                "loss": dict(self.settings.loss),
            },
            "judgements": dict(self.described),
        }
        debias, calibration = self.best_parts
        return FittedReward.of(
            self.scorer, self.objective, description, length_debias=debias, calibration=calibration, training_texts=self.known
        )


def train_and_validation(judgements: "JudgementSet[Any]") -> "tuple[JudgementSet[Any], JudgementSet[Any]]":
    """Return training and validation judgements; where no split was drawn, a tenth of those without one validates.

    Test judgements are left out, whatever else there is. The first seed is taken by which both parts have what they need: of few judgements a
    draw by name may leave one empty.
    """
    train, validation = judgements.split("train"), judgements.split("validation")
    unsplit = judgements.split("")
    if not len(train) and not len(validation) and len(unsplit) >= 2 * LEAST_OF_SPLIT:  # none was drawn
        for seed in range(MOST_DRAWS):
            drawn = assign_splits(unsplit, {"train": 0.9, "validation": 0.1}, seed)
            train, validation = drawn.split("train"), drawn.split("validation")
            if min(len(train), len(validation)) >= LEAST_OF_SPLIT:
                break
    for name, part in (("training", train), ("validation", validation)):
        if len(part) < LEAST_OF_SPLIT:
            counts = ", ".join(f"{sum(item.split == split for item in judgements.items)} {split or 'without a split'}" for split in SPLITS)
            raise InvalidArgumentError(
                f"fitting needs at least {LEAST_OF_SPLIT} {name} judgements, there are {len(part)} of {len(judgements)} ({counts}); draw splits "
                "by: textgym reward data FILE --split 0.8,0.1,0.1 --convert split.jsonl, or collect more judgements"
            )
    return train, validation


def _shuffled(sizes: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Return all rows in random batches; texts of similar length share one, as far as chance allows."""
    order = torch.randperm(len(sizes), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), CHUNK * batch_size):
        chunk = order[start : start + CHUNK * batch_size]
        batches += [[chunk[i] for i in batch] for batch in batches_by_length([sizes[row] for row in chunk], batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
