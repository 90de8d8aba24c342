"""Over-optimisation run: a gold model, proxies from little data, and what the gold says while agents and best-of-n push the proxies up."""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.agent import make_agent
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, RunDirectoryError
from textgym.experiments.evaluate import evaluate
from textgym.experiments.statistics import Estimate
from textgym.files import write_text
from textgym.mdp import TokenMDP
from textgym.policies.generation import generate
from textgym.reward_modeling.data.bootstrap import bootstrapped, whole_scale
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.splits import cluster_names
from textgym.reward_modeling.fitting.fit import fit_reward_model
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward, scores_of_models
from textgym.reward_modeling.overoptimization.scaling_forms import Form, ScalingForm, best_of_n, fit_scaling_form, kl_of_best_of_n
from textgym.reward_modeling.scorers import scorer_class
from textgym.rewards.combination import Combination, combine

Array = NDArray[np.float64]
CONFIG, SINGLE = "config.json", "single"
COMBINATIONS: tuple[Combination, ...] = ("mean", "min", "uncertainty-weighted")
SAMPLES, SCORES, GOLD_PEARSON = "samples.json", "scores.json", "gold.json"
ROW_BATCH = 64
VALIDATION_TEXTS = 200  # by which the best epoch of a proxy is chosen
Job = tuple[str, Callable[..., None], tuple[Any, ...]]  # note, what is done with the settings and the folder, its other arguments
Show = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class OveroptimizationConfig:
    """An over-optimisation run.

    Attributes:
        task: Whose prompts are continued.
        judgements: Ratings with individual raters: a registered name or a file.
        gold_scorer, proxy_scorer: Scorers of the two; the gold model sees half of the texts and half of the raters, the proxies the rest.
            They should be of different kinds: what fools one n-gram model pleases another as well. "mlp" needs the extra "embedding".
        sizes: Training texts of a proxy.
        seeds: Proxies per size, each on a draw of its own, 3 or more.
        members: Bootstraps of one draw that make its ensemble.
        coef: λ of "uncertainty-weighted".
        prompts, samples: Best of n: prompts, and samples of each, from the untrained language model.
        agent: Registered agent of the RL part, trained without KL penalty.
        tokens: Its budget per run.
        evaluations: Points of its curve.
        validation_prompts: Texts per point.
        settings: Further settings of the agent.
    """

    task: str = "ReviewContinuation-v0"
    judgements: str = "human-ratings"
    gold_scorer: str = "mlp"
    proxy_scorer: str = "lm-linear"
    sizes: tuple[int, ...] = (30,)
    seeds: int = 3
    members: int = 4
    coef: float = 1.0
    prompts: int = 16
    samples: int = 512
    agent: str = "reinforce"
    tokens: int = 16_000
    evaluations: int = 8
    validation_prompts: int = 64
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, least in (("seeds", 3), ("members", 2), ("prompts", 2), ("samples", 2), ("tokens", 1), ("evaluations", 2)):
            if getattr(self, name) < least:
                raise InvalidArgumentError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.sizes or min(self.sizes) < 20:
            raise InvalidArgumentError(f"sizes must be numbers of training texts, 20 or more each, got {self.sizes}")


@dataclass(frozen=True)
class Curve:
    """One proxy or ensemble under growing optimisation pressure.

    Attributes:
        size: Training texts behind it.
        how: "single" or how the ensemble is combined.
        kl: Nats per text from the untrained model, (seeds, points).
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
    def turns_over(self) -> bool:
        """Whether, on average over the seeds, the gold score first rises, then falls while the proxy goes on rising."""
        best = self.peak
        return bool(0 < best < self.gold.shape[1] - 1 and self.proxy.mean(0)[-1] > self.proxy.mean(0)[best] and self.fall.value > 0)

    @property
    def peak(self) -> int:
        """The point at which the gold score, averaged over the seeds, is highest."""
        return int(self.gold.mean(0).argmax())

    @property
    def fall(self) -> Estimate:
        """Gold score at `peak` minus that at the end, over the seeds."""
        return over_seeds(self.gold[:, self.peak] - self.gold[:, -1])

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


@dataclass(frozen=True)
class Overoptimization:
    """The outcome: curves of best-of-n and of RL, one for each size and combination."""

    config: OveroptimizationConfig
    gold_pearson: float
    best_of_n: tuple[Curve, ...]
    rl: tuple[Curve, ...]

    def against_single(self, curves: Sequence[Curve], size: int, how: str) -> tuple[Estimate, Estimate]:
        """Return an ensemble's KL at the gold score's peak and its final gold score, each minus the single proxy's of the same seed."""
        by_name = {curve.how: curve for curve in curves if curve.size == size}
        mixed, single = by_name[how], by_name[SINGLE]
        return over_seeds(mixed.kl_at_peaks - single.kl_at_peaks), over_seeds(mixed.gold[:, -1] - single.gold[:, -1])


def over_seeds(values: Array) -> Estimate:
    """Return the mean over seeds, (seeds,), with its 95 % Student interval."""
    from scipy.stats import t

    mean, n = float(values.mean()), len(values)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Estimate(mean, mean - half, mean + half)


def _optimised(models: Sequence[FittedReward], how: str, coef: float) -> FittedReward | FittedEnsemble:
    """Return what is pushed up, the one proxy, or an ensemble of bootstraps."""
    return models[0] if how == SINGLE else FittedEnsemble.of(models, how, coef)  # type: ignore[arg-type]  # one of COMBINATIONS


def overoptimize(config: OveroptimizationConfig, out: str | Path, show: Show = lambda *_: None, processes: int = 1) -> Overoptimization:
    """Run it in a folder; what is finished there is not done again, so an interrupted run goes on.

    Args:
        config: What is run.
        out: The folder.
        show: Progress: called with (steps done, of so many, note).
        processes: How many parts are computed at a time, each in a process with as many threads as this one; the result is the same.

    Raises:
        InvalidArgumentError: The ratings have no individual raters, or are too few for the sizes.
        MissingExtraError: A scorer needs an optional package.
        RunDirectoryError: The folder holds another run, or cannot be written.
    """
    if processes < 1:
        raise InvalidArgumentError(f"processes must be at least 1, got {processes}")
    _, proxy_data = _halves(load_judgements(config.judgements))
    if max(config.sizes) > len(proxy_data.split("train")):
        raise InvalidArgumentError(
            f"sizes go up to the {len(proxy_data.split('train')):,} training texts of the proxies' half, got {max(config.sizes)}"
        )
    for name in {config.gold_scorer, config.proxy_scorer}:
        scorer_class(name)(1)  # what is missing is missed before anything is computed
    folder = _folder(config, Path(out))
    draws = list(product(config.sizes, range(config.seeds)))
    runs = list(product(config.sizes, (SINGLE, *COMBINATIONS), range(config.seeds)))
    fitting: list[Job] = [("gold model", _fit_gold, ()), ("samples", _write_samples, ())]
    fitting += [(f"proxies of {size} texts, seed {seed}", _fit_proxies, (size, seed)) for size, seed in draws]
    using: list[Job] = [("best of n, gold", _score_samples, ())]
    using += [(f"{config.agent} against {how} of {size} texts, seed {seed}", _rl_run, (size, how, seed)) for size, how, seed in runs]
    done, steps = 0, len(fitting) + len(using)
    with _workers(processes) as pool:
        for jobs in (fitting, using):
            for note in _finished(pool, config, folder, jobs):
                done += 1
                show(done, steps, note)
    rl = []
    for size, how in product(config.sizes, (SINGLE, *COMBINATIONS)):
        points = [_read(_rl_path(folder, size, how, seed)) for seed in range(config.seeds)]
        kl, proxy, gold = (np.array([[point[key] for point in run] for run in points]) for key in ("kl", "proxy", "gold"))
        rl.append(_curve(size, how, kl, proxy, gold, "rl"))
    pearson = float(_read(folder / GOLD_PEARSON)["pearson"])
    return Overoptimization(config, pearson, _best_of_n_curves(config, folder), tuple(rl))


@contextmanager
def _workers(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Yield so many processes, or None for this one alone; jobs that have not begun are dropped when an error leaves the block."""
    if processes == 1:
        yield None
        return
    import torch

    pool = ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(pool: ProcessPoolExecutor | None, config: OveroptimizationConfig, folder: Path, jobs: Sequence[Job]) -> Iterator[str]:
    """Do the jobs, in order where there is one process; yield the note of each when it is done."""
    if pool is None:
        for note, job, arguments in jobs:
            job(config, folder, *arguments)
            yield note
        return
    notes = {pool.submit(job, config, folder, *arguments): note for note, job, arguments in jobs}
    for future in as_completed(notes):
        future.result()
        yield notes[future]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _folder(config: OveroptimizationConfig, folder: Path) -> Path:
    described = json.loads(json.dumps(asdict(config)))
    try:
        (folder / "rl").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {folder}: {error.strerror or error}") from error
    path = folder / CONFIG
    if path.exists():
        if json.loads(path.read_text()) != described:
            raise RunDirectoryError(f"{folder} holds a run with other settings; choose another folder or delete it")
    else:
        write_text(path, json.dumps(described, indent=2) + "\n")
    return folder


def _halves(judgements: "JudgementSet[Any]") -> tuple[JudgementSet[RatedText], JudgementSet[RatedText]]:
    """Return two sets without a common text, each rated by another half of the raters."""
    if judgements.kind != "ratings":
        raise InvalidArgumentError(f"over-optimisation needs ratings, got {judgements.kind}")
    parts: tuple[list[RatedText], list[RatedText]] = ([], [])
    for item in judgements.items:
        if len(item.ratings) >= 2 and item.split != "test":
            code = zlib.crc32(item.id.encode())
            half = np.random.default_rng(code).permutation(item.ratings)[code % 2 :: 2]
            parts[code % 2].append(replace(item, rating=float(half.mean()), ratings=tuple(half.tolist()), raters=()))
    if min(len(part) for part in parts) < 40:
        raise InvalidArgumentError("over-optimisation needs texts with individual ratings, two or more each; found too few")
    return replace(judgements, items=tuple(parts[0])), replace(judgements, items=tuple(parts[1]))


def _fit_gold(config: OveroptimizationConfig, folder: Path) -> None:
    if (folder / GOLD_PEARSON).exists():
        return
    fitted = fit_reward_model(_halves(load_judgements(config.judgements))[0], scorer=config.gold_scorer)
    fitted.reward.save(folder / "gold")
    write_text(folder / GOLD_PEARSON, json.dumps({"pearson": float(fitted.best["pearson"])}))


def _proxy_folder(folder: Path, size: int, seed: int, member: int) -> Path:
    """Member 0 is the single proxy of a draw, the others are its bootstraps."""
    return folder / "proxies" / f"{size}-{seed}-{member}"


def _fit_proxies(config: OveroptimizationConfig, folder: Path, size: int, seed: int) -> None:
    data = _halves(load_judgements(config.judgements))[1]
    rng = np.random.default_rng([seed, size])
    train, validation = data.split("train").items, data.split("validation").items
    drawn = replace(data, items=tuple(train[row] for row in rng.choice(len(train), size, replace=False).tolist()), **whole_scale(data))
    names = cluster_names(drawn)
    for member in range(1 + config.members):
        part = (
            drawn if member == 0 else bootstrapped(drawn, rng, names)
        )  # drawn also where it is fitted already: the next one's draw follows
        path = _proxy_folder(folder, size, seed, member)
        if not FittedReward.reads_folder(path):
            items = (*part.items, *validation[:VALIDATION_TEXTS])
            fit_reward_model(replace(part, items=items), scorer=config.proxy_scorer).reward.save(path)


def _proxies(config: OveroptimizationConfig, folder: Path, size: int, seed: int, how: str) -> list[FittedReward]:
    members = (0,) if how == SINGLE else range(1, 1 + config.members)
    return [FittedReward(str(_proxy_folder(folder, size, seed, member))) for member in members]


def _write_samples(config: OveroptimizationConfig, folder: Path) -> None:
    """Write prompt and continuation of every sample of the untrained model, prompt by prompt."""
    if (folder / SAMPLES).exists():
        return
    agent = make_agent("base", config.task, n_envs=ROW_BATCH)
    running = agent.env.mdp
    mdp = TokenMDP(running.task, running.vocabulary, running.reward, ROW_BATCH, "validation", running.max_new_tokens)
    chosen = np.random.default_rng(0).permutation(mdp.n_prompts)[: config.prompts]
    texts = generate(agent.policy, mdp, np.repeat(chosen, config.samples).tolist(), np.random.default_rng(0))
    write_text(folder / SAMPLES, json.dumps([[text.info["prompt"], text.info["continuation"]] for text in texts]))


def _score_samples(config: OveroptimizationConfig, folder: Path) -> None:
    """Write the samples' gold scores and those of every fitted proxy: each is computed once and serves every n."""
    if (folder / SCORES).exists():
        return
    episodes = [Episode(prompt, continuation) for prompt, continuation in _read(folder / SAMPLES)]
    paths = [
        _proxy_folder(folder, size, seed, member)
        for size, seed, member in product(config.sizes, range(config.seeds), range(1 + config.members))
    ]
    found = scores_of_models([FittedReward(str(path)) for path in paths], [episode.text for episode in episodes])
    scores = {"gold": FittedReward(str(folder / "gold")).score(episodes).tolist()}
    scores |= {path.name: row.tolist() for path, row in zip(paths, found, strict=True)}
    write_text(folder / SCORES, json.dumps(scores))


def _best_of_n_curves(config: OveroptimizationConfig, folder: Path) -> tuple[Curve, ...]:
    shape = (-1, config.samples)
    scores = {name: np.array(values).reshape(shape) for name, values in _read(folder / SCORES).items()}
    ns = [2**i for i in range(int(math.log2(config.samples)) + 1)]
    curves = []
    for size, how in product(config.sizes, (SINGLE, *COMBINATIONS)):
        proxy, true = [], []
        for seed in range(config.seeds):
            numbers = (0,) if how == SINGLE else range(1, 1 + config.members)
            members = np.stack([scores[_proxy_folder(folder, size, seed, m).name] for m in numbers])
            mixed = members[0] if how == SINGLE else combine(members, how, config.coef)  # type: ignore[arg-type]  # one of COMBINATIONS
            proxy.append([best_of_n(mixed, mixed, n).mean() for n in ns])
            true.append([best_of_n(mixed, scores["gold"], n).mean() for n in ns])
        kl = np.tile([kl_of_best_of_n(n) for n in ns], (config.seeds, 1))
        curves.append(_curve(size, how, kl, np.array(proxy), np.array(true), "best-of-n"))
    return tuple(curves)


def _rl_path(folder: Path, size: int, how: str, seed: int) -> Path:
    return folder / "rl" / f"{size}-{how}-{seed}.json"


def _rl_run(config: OveroptimizationConfig, folder: Path, size: int, how: str, seed: int) -> None:
    """Train one agent against a proxy; write its curve, from the untrained model on, with the texts behind each point."""
    path = _rl_path(folder, size, how, seed)
    if path.exists():
        return
    settings = {"kl_coef": 0.0, **(config.settings or {})}
    agent = make_agent(
        config.agent, config.task, reward=_optimised(_proxies(config, folder, size, seed, how), how, config.coef), seed=seed, **settings
    )
    reference = agent.reference
    curve: list[dict[str, Any]] = []

    def measure() -> None:
        seen = evaluate(agent, "validation", config.validation_prompts, seed, "", reference)
        summary = seen.summary()
        kl = max(0.0, summary["kl"] * summary["length"]) if curve else 0.0  # the untrained model is where it starts
        texts = [list(pair) for pair in zip(seen.prompts, seen.continuations, strict=True)]
        curve.append({"tokens": agent.n_tokens, "kl": kl, "proxy": summary["reward"], "texts": texts})

    def after_iteration(_: Any) -> None:
        if len(curve) <= config.evaluations and agent.n_tokens >= len(curve) * config.tokens / config.evaluations:
            measure()

    measure()
    agent.on_iteration = after_iteration
    agent.learn(config.tokens)
    while len(curve) <= config.evaluations:  # every curve has as many points, though the last iterations may have jumped over some
        measure()
    different = list(dict.fromkeys((p, c) for point in curve for p, c in point["texts"]))  # an agent that has collapsed repeats itself
    scores = FittedReward(str(folder / "gold")).score([Episode(*text) for text in different])
    of_text = dict(zip(different, scores.tolist(), strict=True))
    for point in curve:
        point["gold"] = float(np.mean([of_text[p, c] for p, c in point["texts"]]))
    write_text(path, json.dumps(curve))


def _curve(size: int, how: str, kl: Array, proxy: Array, gold: Array, form: Form) -> Curve:
    distance, gain = np.sqrt(kl.mean(0)), (gold - gold[:, :1]).mean(0)
    if len(np.unique(distance[distance > 0])) < 2:  # it hardly moved: there is nothing to fit
        return Curve(size, how, kl, proxy, gold, ScalingForm(form, math.nan, math.nan, math.nan, math.inf))
    return Curve(size, how, kl, proxy, gold, fit_scaling_form(distance, gain, form))
