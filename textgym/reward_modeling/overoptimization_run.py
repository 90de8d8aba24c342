"""Over-optimisation run: a gold model, proxies from little data, and what the gold says while agents and best-of-n push the proxies up."""

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from textgym.policies.reference import ReferenceModel
from textgym.reward_modeling.bootstrap import bootstrapped, whole_scale
from textgym.reward_modeling.fit import fit_reward_model
from textgym.reward_modeling.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.fitted_reward import FittedReward
from textgym.reward_modeling.judgement_source import load_judgements
from textgym.reward_modeling.judgements import JudgementSet, RatedText
from textgym.reward_modeling.overoptimization import Form, ScalingForm, best_of_n, fit_scaling_form, kl_of_best_of_n
from textgym.reward_modeling.splits import cluster_names
from textgym.rewards.combination import Combination, combine

Array = NDArray[np.float64]
CONFIG, SINGLE = "config.json", "single"
COMBINATIONS: tuple[Combination, ...] = ("mean", "min", "uncertainty-weighted")
ROW_BATCH = 64
Show = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class OveroptimizationConfig:
    """An over-optimisation run.

    Attributes:
        task: Whose prompts are continued.
        judgements: Ratings with individual raters: a registered name or a file.
        gold_scorer, proxy_scorer: Scorers of the two; the gold model sees half of the texts and half of the raters, the proxies the rest.
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
    gold_scorer: str = "tfidf"
    proxy_scorer: str = "tfidf"
    sizes: tuple[int, ...] = (100, 1000)
    seeds: int = 3
    members: int = 4
    coef: float = 1.0
    prompts: int = 32
    samples: int = 256
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
        """Whether the proxy ends higher than where the gold score was highest, and the gold score lower, on average over the seeds."""
        best = int(self.gold.mean(0).argmax())
        return bool(
            best < self.gold.shape[1] - 1
            and self.proxy.mean(0)[-1] > self.proxy.mean(0)[best]
            and over_seeds(self.gold[:, best] - self.gold[:, -1]).value > 0
        )

    @property
    def loss(self) -> Estimate:
        """Highest gold score on the way minus that at the end, over the seeds."""
        return over_seeds(self.gold.max(1) - self.gold[:, -1])


@dataclass(frozen=True)
class Overoptimization:
    """The outcome: curves of best-of-n and of RL, one for each size and combination."""

    config: OveroptimizationConfig
    gold_pearson: float
    best_of_n: tuple[Curve, ...]
    rl: tuple[Curve, ...]

    def delay(self, curves: Sequence[Curve], size: int, how: str) -> Estimate:
        """Return the final gold score of an ensemble minus that of the single proxy from the same data, over the seeds."""
        by_name = {curve.how: curve for curve in curves if curve.size == size}
        return over_seeds(by_name[how].gold[:, -1] - by_name[SINGLE].gold[:, -1])


def over_seeds(values: Array) -> Estimate:
    """Return the mean over seeds, (seeds,), with its 95 % Student interval."""
    from scipy.stats import t

    mean, n = float(values.mean()), len(values)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Estimate(mean, mean - half, mean + half)


def _optimised(models: Sequence[FittedReward], how: str, coef: float) -> FittedReward | FittedEnsemble:
    """Return what is pushed up, of a single proxy and its bootstraps: the one, or an ensemble of the others."""
    return models[0] if how == SINGLE else FittedEnsemble.of(models[1:], how, coef)  # type: ignore[arg-type]  # one of COMBINATIONS


def overoptimize(config: OveroptimizationConfig, out: str | Path, show: Show = lambda *_: None) -> Overoptimization:
    """Run it in a folder; what is finished there is not done again, so an interrupted run goes on.

    Raises:
        InvalidArgumentError: The ratings have no individual raters, or are too few for the sizes.
        RunDirectoryError: The folder holds another run, or cannot be written.
    """
    folder = _folder(config, Path(out))
    gold_data, proxy_data = _halves(load_judgements(config.judgements))
    if max(config.sizes) > len(proxy_data.split("train")):
        raise InvalidArgumentError(
            f"sizes go up to the {len(proxy_data.split('train')):,} training texts of the proxies' half, got {max(config.sizes)}"
        )
    steps = 2 + len(config.sizes) * config.seeds * (1 + (1 + len(COMBINATIONS)))
    done = 0

    def step(note: str) -> None:
        nonlocal done
        done += 1
        show(done, steps, note)

    gold_path = folder / "gold"
    fitted = fit_reward_model(gold_data, scorer=config.gold_scorer)
    if not FittedReward.reads_folder(gold_path):
        fitted.reward.save(gold_path)
    step("gold model")
    proxies = {}
    for size in config.sizes:
        for seed in range(config.seeds):
            proxies[size, seed] = _proxies(config, proxy_data, size, seed)
            step(f"proxies of {size} texts, seed {seed}")
    bon = _best_of_n_curves(config, folder, fitted.reward, proxies)
    step("best of n")
    rl = []
    for size in config.sizes:
        for how in (SINGLE, *COMBINATIONS):
            runs = []
            for seed in range(config.seeds):
                runs.append(_rl_run(config, folder, fitted.reward, proxies[size, seed], how, size, seed))
                step(f"{config.agent} against {how} of {size} texts, seed {seed}")
            kl, proxy, gold = (np.array([[point[key] for point in run] for run in runs]) for key in ("kl", "proxy", "gold"))
            rl.append(_curve(size, how, kl, proxy, gold, "rl"))
    return Overoptimization(config, float(fitted.best["pearson"]), bon, tuple(rl))


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


def _proxies(config: OveroptimizationConfig, data: JudgementSet[RatedText], size: int, seed: int) -> list[FittedReward]:
    """Return the single proxy of a draw, then its bootstraps."""
    rng = np.random.default_rng([seed, size])
    train, validation = data.split("train").items, data.split("validation").items
    drawn = replace(data, items=tuple(train[row] for row in rng.choice(len(train), size, replace=False).tolist()), **whole_scale(data))
    names = cluster_names(drawn)
    found = []
    for member in range(1 + config.members):
        part = drawn if member == 0 else bootstrapped(drawn, rng, names)
        found.append(fit_reward_model(replace(part, items=(*part.items, *validation[:500])), scorer=config.proxy_scorer).reward)
    return found


def _best_of_n_curves(
    config: OveroptimizationConfig, folder: Path, gold: FittedReward, proxies: Mapping[tuple[int, int], Sequence[FittedReward]]
) -> tuple[Curve, ...]:
    path = folder / "samples.json"
    if not path.exists():
        write_text(path, json.dumps(_samples(config)))
    episodes = [Episode(prompt, continuation) for prompt, continuation in json.loads(path.read_text())]
    shape = (config.prompts, config.samples)
    gold_scores = np.asarray(gold.score(episodes)).reshape(shape)
    ns = [2**i for i in range(int(math.log2(config.samples)) + 1)]
    curves = []
    scores = {key: np.stack([np.asarray(m.score(episodes)).reshape(shape) for m in models]) for key, models in proxies.items()}
    for size in config.sizes:
        for how in (SINGLE, *COMBINATIONS):
            proxy, true = [], []
            for seed in range(config.seeds):
                members = scores[size, seed]
                mixed = members[0] if how == SINGLE else combine(members[1:], how, config.coef)  # type: ignore[arg-type]
                proxy.append([best_of_n(mixed, mixed, n).mean() for n in ns])
                true.append([best_of_n(mixed, gold_scores, n).mean() for n in ns])
            kl = np.tile([kl_of_best_of_n(n) for n in ns], (config.seeds, 1))
            curves.append(_curve(size, how, kl, np.array(proxy), np.array(true), "best-of-n"))
    return tuple(curves)


def _samples(config: OveroptimizationConfig) -> list[list[str]]:
    """Return prompt and continuation of every sample of the untrained model, prompt by prompt."""
    agent = make_agent("base", config.task, n_envs=ROW_BATCH)
    running = agent.env.mdp
    mdp = TokenMDP(running.task, running.vocabulary, running.reward, ROW_BATCH, "validation", running.max_new_tokens)
    chosen = np.random.default_rng(0).permutation(mdp.n_prompts)[: config.prompts]
    texts = generate(agent.policy, mdp, np.repeat(chosen, config.samples).tolist(), np.random.default_rng(0))
    return [[text.info["prompt"], text.info["continuation"]] for text in texts]


def _rl_run(
    config: OveroptimizationConfig, folder: Path, gold: FittedReward, models: Sequence[FittedReward], how: str, size: int, seed: int
) -> list[dict[str, float]]:
    """Train one agent against a proxy or an ensemble; return its curve, from the untrained model on."""
    path = folder / "rl" / f"{size}-{how}-{seed}.json"
    if path.exists():
        found: list[dict[str, float]] = json.loads(path.read_text())
        return found
    settings = {"kl_coef": 0.0, **(config.settings or {})}
    agent = make_agent(config.agent, config.task, reward=_optimised(models, how, config.coef), seed=seed, **settings)
    reference = ReferenceModel(agent.reference_model, agent.device) if agent.reference_model is not None else None
    curve: list[dict[str, float]] = []

    def measure() -> None:
        seen = evaluate(agent, "validation", config.validation_prompts, seed, gold, reference)
        summary = seen.summary()
        kl = max(0.0, summary["kl"] * summary["length"]) if curve else 0.0  # the untrained model is where it starts
        curve.append({"tokens": agent.n_tokens, "kl": kl, "proxy": summary["reward"], "gold": summary["gold"]})

    def after_iteration(_: Any) -> None:
        if len(curve) <= config.evaluations and agent.n_tokens >= len(curve) * config.tokens / config.evaluations:
            measure()

    measure()
    agent.on_iteration = after_iteration
    agent.learn(config.tokens)
    while len(curve) <= config.evaluations:  # every curve has as many points, though the last iterations may have jumped over some
        measure()
    write_text(path, json.dumps(curve))
    return curve


def _curve(size: int, how: str, kl: Array, proxy: Array, gold: Array, form: Form) -> Curve:
    distance, gain = np.sqrt(kl.mean(0)), (gold - gold[:, :1]).mean(0)
    if len(np.unique(distance[distance > 0])) < 2:  # it hardly moved: there is nothing to fit
        return Curve(size, how, kl, proxy, gold, ScalingForm(form, math.nan, math.nan, math.nan, math.inf))
    return Curve(size, how, kl, proxy, gold, fit_scaling_form(distance, gain, form))
