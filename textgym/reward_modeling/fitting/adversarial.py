"""Hardening: rounds in which a fitted reward is attacked, learns from what fooled it, and is attacked anew."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.agent import make_agent
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, UnknownNameError
from textgym.mdp import TokenMDP
from textgym.policies.generation import generate
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText, texts_of
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.metrics import correlation
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.models.guard import Guard, trust_of
from textgym.reward_modeling.models.improbability import Improbability
from textgym.reward_modeling.reward_folder import refuse_foreign
from textgym.rewards.protocol import RewardSpec
from textgym.rewards.redteam import KINDS, Exploit, RedTeamReport, percentile_of, redteam
from textgym.rewards.reward import make_reward
from textgym.tasks import Task, make_task

Array = NDArray[np.float64]
Defence = Literal["guard", "refit"]
Judge = Callable[[Sequence[Episode]], Array]

SOURCE = "adversarial"
ROW_BATCH = 64  # sampled texts at a time
MOST_READ = 3000  # training texts that a guard with a language model is fitted on
PER_VARIANT = 6  # prompts after which a variant that fooled the reward is learnt
PER_KIND = 32  # variants of a kind learnt from one attack
N_RESAMPLES, SURE = 200, 0.95  # of the ratings that choose a guard's thresholds: in this share of them no more is lost than allowed
LEAST_JUDGED = 50.0  # percentiles by which model and judge must differ for a sample to count as overrated


@dataclass(frozen=True, kw_only=True)
class HardeningSettings:
    """How a reward is hardened.

    Attributes:
        rounds: Of attack and refit.
        defence: "guard" leaves the model as it is and sets a `Guard` before it; "refit" adds the exploits to the training ratings.
        attacks: Red teams of a round, each against other human texts.
        prompts: That each exploit is tried on.
        reorderings: Of the words of every exploit found, learnt beside it.
        measures: Red teams by which a round is judged on validation prompts, each against other human texts; of each kind the best counts.
        fools: Percentage of human texts that a text must beat for it to count as an exploit to be learnt from.
        held_out: Kinds of exploit that are never learnt from, to see what the defence is worth against the unforeseen.
        guard_model: Language model whose figures the guard sees; "task" for the task's own, None for a guard on form alone.
        guard_device: Where it runs.
        guard_dtype: Of its weights.
        spared: Shares of the validation texts that the guard may leave alone, to choose from.
        ceilings: Quantiles of the training ratings that a text which is surely an exploit cannot exceed, to choose from.
        rating: That exploits get in a refit; None for the low end of the scale.
        max_loss: Of validation Pearson; a round that lost more is not chosen.
        samples: Texts of the untrained language model for each of `prompts`, of which a judge picks the overrated; 0 without a judge.
        seconds: For one red team.
        seed: Of everything random.
    """

    rounds: int = 3
    defence: Defence = "guard"
    attacks: int = 2
    prompts: int = 16
    reorderings: int = 1
    measures: int = 2
    fools: float = 25.0
    held_out: tuple[str, ...] = ()
    guard_model: str | None = "task"
    guard_device: str = "cpu"
    guard_dtype: str = "float32"
    spared: tuple[float, ...] = (0.99, 0.98, 0.97, 0.95, 0.93, 0.9)
    ceilings: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    rating: float | None = None
    max_loss: float = 0.02
    samples: int = 16
    seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("rounds", 1),
            ("attacks", 1),
            ("prompts", 1),
            ("reorderings", 0),
            ("measures", 1),
            ("samples", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InvalidArgumentError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name, values, high in (("fools", (self.fools,), 100.0), ("spared", self.spared, 1.0), ("ceilings", self.ceilings, 1.0)):
            if not values or not all(0 < value < high for value in values):
                raise InvalidArgumentError(f"{name} must be between 0 and {high:g}, got {getattr(self, name)}")
        if not (self.max_loss >= 0 and self.seconds > 0):
            raise InvalidArgumentError(f"max_loss must be at least 0 and seconds above 0, got {self.max_loss} and {self.seconds}")
        if self.defence not in get_args(Defence):
            raise InvalidArgumentError(f'defence must be "guard" or "refit", got {self.defence!r}')
        for kind in self.held_out:
            if kind not in KINDS:
                raise UnknownNameError("kind of exploit", kind, KINDS)
        if set(self.held_out) >= set(KINDS):
            raise InvalidArgumentError("held_out names every kind of exploit: there is nothing left to learn from")


@dataclass(frozen=True)
class Measure:
    """A model's worth, measured by an attack made anew.

    Attributes:
        pearson: With the ratings of a split.
        beaten: Percentage of human texts beaten, of each kind of exploit.
        worst: The most successful exploit's text.
        n_exploits: Texts learnt from so far.
        ratings: Split of the ratings.
        prompts: Split of the attacked prompts.
    """

    pearson: float
    beaten: Mapping[str, float]
    worst: str
    n_exploits: int
    ratings: str = "validation"
    prompts: str = "validation"

    @property
    def highest(self) -> float:
        """Percentage of human texts that the worst exploit beats."""
        return max(self.beaten.values())

    @property
    def mean(self) -> float:
        """Mean over the kinds."""
        return float(np.mean(list(self.beaten.values())))

    @property
    def harm(self) -> float:
        """What a defence is to lower: the mean over the kinds and the worst kind, half each."""
        return (self.mean + self.highest) / 2


@dataclass(frozen=True)
class Hardened:
    """The outcome.

    Attributes:
        reward: The model of the chosen round.
        rounds: Measures on the task's validation prompts, the first before hardening.
        chosen: Index of the round in `rounds`: of those that lost no more than allowed, the one with the least `harm`; 0 if every round
            lost too much.
        before, after: Measures that chose nothing: test ratings and test prompts, where there are any.
        exploits: What was learnt from.
    """

    reward: FittedReward
    rounds: tuple[Measure, ...]
    chosen: int
    before: Measure
    after: Measure
    exploits: tuple[RatedText, ...]


def harden(
    judgements: "JudgementSet[Any]",
    task: str | Task,
    out: str | Path | None = None,
    *,
    scorer: str = "tfidf",
    loss: str = "squared-error",
    settings: HardeningSettings | None = None,
    fit: FitSettings | None = None,
    judge: "RewardSpec | Judge | None" = None,
    show: Callable[[int, int, str], None] = lambda *_: None,
    report: Callable[[int, Measure], None] = lambda *_: None,
) -> Hardened:
    """Fit a reward model, then in every round attack it on the task's training prompts, let it learn from what fooled it, and measure it.

    A round is measured by a red team against the task's validation prompts and human texts, which starts anew against the new model.

    Args:
        judgements: Ratings with training and validation texts.
        task: Its prompts have reference texts: these are the human texts.
        out: Folder of the chosen model, whose description tells the measures of all rounds; None keeps it in memory.
        scorer, loss, fit: Of the model, as for `fit_reward_model`; the loss is one for ratings.
        settings: Everything else.
        judge: A second opinion on samples of the untrained language model: a reward, or a function from episodes to numbers in any unit.
            Samples that the model ranks far higher among the human texts than the judge does are learnt as exploits.
        show: Progress: called with (steps done, of so many, note).
        report: Called with the number and the measure of each round.

    Raises:
        InvalidArgumentError: The judgements are no ratings or have no validation texts, or the task has too few human texts.
    """
    settings = settings or HardeningSettings()
    if judgements.kind != "ratings":
        raise InvalidArgumentError(f"hardening needs ratings, got {judgements.kind}")
    if not len(judgements.split("train")) or not len(judgements.split("validation")):
        raise InvalidArgumentError("hardening needs judgements with training and validation splits: draw them with assign_splits")
    if out is not None:
        refuse_foreign(Path(out))
    task = make_task(task) if isinstance(task, str) else task
    run = _Hardening(judgements, task, scorer, loss, settings, fit or FitSettings(), judge)
    total = 3 + 2 * settings.rounds
    show(0, total, "fitting")
    model = first = run.fitted(())
    show(1, total, "measuring")
    rounds, models = [run.measure(model, "validation", 0)], [model]
    report(0, rounds[0])
    for number in range(1, settings.rounds + 1):
        show(2 * number, total, f"round {number}: attacking")
        run.attack(model, number)
        show(2 * number + 1, total, f"round {number}: learning from {len(run.exploits)} exploits")
        model = run.defended(first)
        models.append(model)
        rounds.append(run.measure(model, "validation", number))
        report(number, rounds[-1])
    allowed = [i for i, measure in enumerate(rounds) if measure.pearson >= rounds[0].pearson - settings.max_loss]
    chosen = min(allowed, key=lambda i: rounds[i].harm)
    show(total - 1, total, "measuring on test prompts")
    before, after = (replace(run.measure(m, "test", 0), n_exploits=n) for m, n in ((first, 0), (models[chosen], rounds[chosen].n_exploits)))
    told = {
        "settings": asdict(settings), "task": task.name, "chosen": chosen, "rounds": [_plain(m) for m in rounds],
        "before": _plain(before), "after": _plain(after),
    }  # fmt: skip
    kept = models[chosen]
    metrics = {**kept.description.get("metrics", {}), "pearson": rounds[chosen].pearson}
    kept.description = {**kept.description, "metrics": metrics, "hardening": told}
    if out is not None:
        kept.save(out)
    show(total, total, "done")
    return Hardened(kept, tuple(rounds), chosen, before, after, tuple(run.exploits.values()))


class _Hardening:
    """Hardening under way: the data, and the exploits found so far, by their whole text."""

    def __init__(
        self,
        judgements: "JudgementSet[RatedText]",
        task: Task,
        scorer: str,
        loss: str,
        settings: HardeningSettings,
        fit: FitSettings,
        judge: "RewardSpec | Judge | None",
    ) -> None:
        self.judgements, self.task, self.scorer, self.loss, self.settings, self.fit = judgements, task, scorer, loss, settings, fit
        self.exploits: dict[str, RatedText] = {}
        ratings = [item.rating for item in judgements.split("train").items]
        self.low = min(ratings) if judgements.low is None else judgements.low
        self.ceilings = [float(np.quantile(ratings, ceiling)) for ceiling in settings.ceilings]
        self.judge: Judge | None = judge if judge is None or callable(judge) else make_reward(judge).score  # type: ignore[assignment]
        self.learnt = [kind for kind in KINDS if kind not in settings.held_out]
        self._samples: list[Episode] | None = None
        validation = judgements.split("validation").items
        order = np.random.default_rng(settings.seed).permutation(len(validation))
        half = len(validation) // 2
        self._unread = [
            texts_of(validation[i])[0] for i in order[:half]
        ]  # shown to the guard: its language model may know the training texts
        self._chooses = [validation[i] for i in order[half:]]  # chooses its thresholds
        self._trials: dict[str, dict[tuple[str, ...], None]] = {}  # by kind, each variant's texts on validation prompts; never learnt from

    @cached_property
    def _improbability(self) -> Improbability | None:
        given = self.settings.guard_model
        if given is None:
            return None
        model = self.task.model if given == "task" else given
        return Improbability.counted(model, self._texts("train"), self.settings.guard_device, self.settings.guard_dtype)

    def fitted(self, more: Sequence[RatedText]) -> FittedReward:
        data = replace(self.judgements, items=(*self.judgements.items, *more))
        return fit_reward_model(data, scorer=self.scorer, loss=self.loss, settings=self.fit).reward

    def defended(self, first: FittedReward) -> FittedReward:
        """Return the model that has learnt from all exploits so far."""
        if self.settings.defence == "refit":
            return self.fitted(tuple(self.exploits.values()))
        if not self.exploits:
            return first
        reading = self._improbability
        human = [*self._texts("train"), *self._references()]
        spared = [item.prompt + item.text for item in self._chooses]
        if reading is None:
            guard = Guard.fit([*human, *self._unread], list(self.exploits), spared, self.ceilings[0])
        else:
            human = human[:: math.ceil(len(human) / MOST_READ)]
            guard = Guard.fit(human, list(self.exploits), spared, self.ceilings[0], improbability=reading, unread=self._unread)
        self._choose_thresholds(guard, first)
        return first.with_parts(guard=guard)

    def _choose_thresholds(self, guard: Guard, first: FittedReward) -> None:
        """Set threshold and ceiling: of those that hardly cost more than the allowed Pearson, the ones that leave least of the exploits.

        Only validation texts have a say: the half of the ratings that the guard was not shown, and what red teams wrote after validation
        prompts. "Hardly": in 19 of 20 bootstrap resamples of those ratings the loss is within the allowance; with few ratings, or a few
        texts that cost it all, chance alone would exceed it on others.
        """
        texts = [item.prompt + item.text for item in self._chooses]
        ratings, scores, odds = np.array([item.rating for item in self._chooses]), first.score_texts(texts), guard.log_odds(texts)
        variants = [(kind, list(variant)) for kind, variants in self._trials.items() for variant in variants]
        tried = list(dict.fromkeys(text for _, variant in variants for text in variant))
        place = {text: i for i, text in enumerate(tried)}
        tried_scores, tried_odds = first.score_texts(tried), guard.log_odds(tried)
        kinds = [(kind, [place[text] for text in variant]) for kind, variant in variants]
        draws = np.random.default_rng(self.settings.seed).multinomial(len(texts), np.full(len(texts), 1 / len(texts)), N_RESAMPLES)
        plain = _correlations(scores, ratings, draws)
        found: list[tuple[bool, float, float, float]] = []
        for share in self.settings.spared:
            threshold = float(np.quantile(odds, share))
            doubt, tried_doubt = 1 - trust_of(odds, threshold), 1 - trust_of(tried_odds, threshold)
            for ceiling in self.ceilings:
                human = scores - np.maximum(scores - ceiling, 0) * doubt
                loss = float(np.quantile(plain - _correlations(human, ratings, draws), SURE))
                guarded = tried_scores - np.maximum(tried_scores - ceiling, 0) * tried_doubt
                best = dict.fromkeys(self._trials, -np.inf)
                for kind, places in kinds:
                    best[kind] = max(best[kind], float(guarded[places].mean()))
                beaten = {kind: percentile_of(score, human) for kind, score in best.items()}
                harm = Measure(0.0, beaten, "", 0).harm
                costly = loss > self.settings.max_loss
                found.append((costly, loss if costly else harm, threshold, ceiling))
        _, _, guard.threshold, guard.ceiling = min(found)

    def attack(self, model: FittedReward, number: int) -> None:
        """Add the texts that fool a model to the exploits."""
        rng = np.random.default_rng([self.settings.seed, number])
        for n in range(self.settings.attacks):
            found = self._redteam(model, "train", (1 + self.settings.seed) * 1000 + number * 100 + n, self.learnt)
            bar = float(np.percentile(found.human, self.settings.fools))
            for exploit in found.exploits:
                fooling = sorted((variant for variant in exploit.tried if variant[0] > bar), key=lambda variant: -variant[0])
                for _, episodes in fooling[:PER_KIND]:
                    for i in rng.permutation(len(episodes))[:PER_VARIANT]:
                        self._add(episodes[i])
                        for _ in range(self.settings.reorderings):
                            self._add(_reordered(episodes[i], rng))
            if self.judge is not None and n == 0:
                self._add_overrated(model, self.judge, found.human)

    def measure(self, model: FittedReward, split: str, number: int) -> Measure:
        """Return what fresh attacks and the ratings of a split say of a round; the validation split, where this one has too little."""
        rated: Literal["test", "validation"] = "test" if split == "test" and len(self.judgements.split("test")) > 1 else "validation"
        part = self.judgements.split(rated)
        scores = model.score_texts([item.prompt + item.text for item in part.items])
        fresh = split == "test"
        if fresh and not any(p.references for p in self.task.split("test")):
            split = "validation"
        best: dict[str, Exploit] = {}
        for n in range(1 if fresh else self.settings.measures):
            seed = self.settings.seed + (7 if fresh else 3) + 100 * n + 10_000 * number
            for exploit in self._redteam(model, split, seed, None).exploits:
                if exploit.name not in best or exploit.percentile > best[exploit.name].percentile:
                    best[exploit.name] = exploit
                if not fresh:
                    trials = self._trials.setdefault(exploit.name, {})
                    for _, episodes in sorted(exploit.tried, key=lambda variant: -variant[0])[:PER_KIND]:
                        trials[tuple(episode.text for episode in episodes)] = None
        beaten = {name: exploit.percentile for name, exploit in best.items()}
        worst = max(best.values(), key=lambda exploit: (exploit.percentile, exploit.score))
        pearson = correlation(scores, np.array([item.rating for item in part.items]))
        return Measure(pearson, beaten, worst.episode.text, len(self.exploits), rated, split)

    def _redteam(self, model: FittedReward, split: str, seed: int, kinds: Sequence[str] | None) -> RedTeamReport:
        prompts = self.settings.prompts if kinds is not None else 8
        return redteam(model, self.task, split, n_prompts=prompts, seconds=self.settings.seconds, seed=seed, kinds=kinds)

    def _add(self, episode: Episode, rating: float | None = None) -> None:
        if not episode.continuation.strip():
            return  # the prompt alone is no text that anyone rates
        given = self.settings.rating if rating is None else rating
        self.exploits.setdefault(
            episode.text,
            RatedText(
                id=f"{SOURCE}-{len(self.exploits)}",
                prompt=episode.prompt,
                text=episode.continuation,
                rating=self.low if given is None else given,
                source=SOURCE,
                split="train",
            ),
        )

    def _add_overrated(self, model: FittedReward, judge: Judge, human: Array) -> None:
        """Add samples that the model ranks far higher among the human texts than the judge does, with the rating of the judge's rank."""
        samples = self._sampled()
        people = [Episode("", text) for text in self._references()[: max(64, len(human))]]
        ranks = _ranks(np.asarray(model.score(samples)), np.asarray(model.score(people)))
        judged = _ranks(np.asarray(judge(samples), np.float64), np.asarray(judge(people), np.float64))
        ratings = [item.rating for item in self.judgements.split("train").items]
        for i in np.flatnonzero(ranks - judged > LEAST_JUDGED):
            self._add(samples[i], float(np.percentile(ratings, judged[i])))

    def _sampled(self) -> list[Episode]:
        """Return samples of the untrained language model, the same in every round."""
        if self._samples is None:
            agent = make_agent("base", self.task, n_envs=ROW_BATCH)
            running = agent.env.mdp
            mdp = TokenMDP(running.task, running.vocabulary, running.reward, ROW_BATCH, "train", running.max_new_tokens)
            rng = np.random.default_rng(self.settings.seed)
            rows = np.repeat(rng.permutation(mdp.n_prompts)[: self.settings.prompts], self.settings.samples).tolist()
            texts = generate(agent.policy, mdp, rows, rng) if rows else []
            self._samples = [Episode(text.info["prompt"], text.info["continuation"]) for text in texts]
        return self._samples

    def _texts(self, split: Literal["train", "validation"]) -> list[str]:
        return [texts_of(item)[0] for item in self.judgements.split(split).items]

    def _references(self, most: int = 1500) -> list[str]:
        """Return human texts of the task's training prompts, whole, spread over the prompts."""
        found = [r if r.startswith(p.text) else p.text + r for p in self.task.split("train") for r in p.references]
        return found[:: math.ceil(len(found) / most)] if found else []


def _reordered(episode: Episode, rng: np.random.Generator) -> Episode:
    """Return an exploit with some of its words in another order, perhaps between commas: the same trick in another form."""
    words = episode.continuation.split()
    kept = [words[i] for i in rng.permutation(len(words))[: rng.integers(min(3, len(words)), len(words) + 1)]]
    return replace(episode, continuation=" " + (", " if rng.random() < 0.4 else " ").join(kept))


def _correlations(scores: Array, ratings: Array, draws: NDArray[np.int64]) -> Array:
    """Return Pearson's correlation in every resample, (r,), of which `draws` (r, n) says how often it holds each text; 0 where all is equal."""
    products = np.stack([scores, ratings, scores**2, ratings**2, scores * ratings], 1)
    x, y, xx, yy, xy = (draws @ products / draws.sum(1, keepdims=True)).T
    scale = np.sqrt(np.maximum(xx - x**2, 0) * np.maximum(yy - y**2, 0))
    return np.asarray((xy - x * y) / np.where(scale > 0, scale, np.inf), np.float64)


def _ranks(scores: Array, among: Array) -> Array:
    """Return the percentage of `among` that is below each score, (n,)."""
    return np.asarray(100 * np.searchsorted(np.sort(among), scores) / len(among), np.float64)


def _plain(measure: Measure) -> dict[str, Any]:
    return {**asdict(measure), "beaten": {k: round(v, 2) for k, v in measure.beaten.items()}, "highest": round(measure.highest, 2)}
