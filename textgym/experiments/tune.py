"""Tuning: a search for an agent's settings on a task, judged on validation prompts, kept on disk trial by trial."""

import itertools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.agent import DEFAULT_KL_COEF, agent_search_space, agent_settings, load_agent, make_agent
from textgym.errors import DivergenceError, InvalidArgumentError, MissingExtraError, RunDirectoryError
from textgym.experiments.evaluate import evaluate
from textgym.experiments.run_directory import CONFIG_FILE, RunDirectory
from textgym.experiments.statistics import difference
from textgym.experiments.train import PACKAGES, TrainConfig, resume, train
from textgym.plugin_manager import installed_plugins
from textgym.search_space import Choice, Range
from textgym.tasks import find_task_name
from textgym.tuned_settings import TunedSettings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STORAGE_FILE, TUNED_FILE, CONFIRMED_FILE, START_FILE = "trials.db", "tuned.json", "confirmed.json", "start.json"
FRESH_SEED = 1000  # seeds of the confirmation begin here; trials use 0, 1, ...
STARTUP_TRIALS = 4  # drawn at random before the sampler believes its model, and whole before the pruner compares
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TuneConfig:
    """A search.

    Attributes:
        task: Registered task, short or full name.
        agent: Registered agent; its class declares the search space.
        trials: Trials that are to end; the first one has the defaults.
        tokens: Token budget of one run.
        seeds: Runs of a trial, with the seeds 0 ... seeds − 1; their mean counts.
        settings: Fixed settings of the agent; they leave the search space.
        max_kl: A trial whose policy is farther from the starting model than this, nats per token, does not count: any reward can be raised
            by texts that the model would never write. Not asked for where there is no reference model.
        points: Evaluations of a run, at each of which it may be pruned; the last one counts.
        validation_prompts: Prompts per evaluation, of the validation split; the test split is never looked at.
        confirm_seeds: Fresh seeds with which defaults and best settings are compared at the end.
        seed: Of the search.
        task_options: Options of the task.
    """

    task: str
    agent: str
    trials: int = 20
    tokens: int = 5_000
    seeds: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    max_kl: float = 1.0
    points: int = 3
    validation_prompts: int = 128
    confirm_seeds: int = 3
    seed: int = 0
    task_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("trials", "tokens", "seeds", "points", "validation_prompts"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.confirm_seeds < 0 or not self.max_kl > 0:
            raise InvalidArgumentError(f"confirm_seeds must be at least 0 and max_kl above 0, got {self.confirm_seeds} and {self.max_kl}")

    @property
    def command(self) -> str:
        """The command that starts this search, but for its directory."""
        fixed = [part for n, v in self.settings.items() for part in ("--set", f"{n}={v}")]
        fixed += [part for n, v in self.task_options.items() for part in ("--task-set", f"{n}={v}")]
        numbers = {"trials": self.trials, "tokens": self.tokens, "seeds": self.seeds, "max-kl": self.max_kl, "points": self.points}
        numbers |= {"validation-prompts": self.validation_prompts, "confirm-seeds": self.confirm_seeds, "seed": self.seed}
        words = [
            "textgym",
            "tune",
            self.task,
            "--agent",
            self.agent,
            *(p for n, v in numbers.items() for p in (f"--{n}", f"{v:g}")),
            *fixed,
        ]
        return shlex.join(words)

    def run(self, settings: Mapping[str, Any], seed: int, points: int) -> TrainConfig:
        """Return one training run with the given settings beside the fixed ones."""
        return TrainConfig(
            self.task,
            self.agent,
            self.tokens,
            seed,
            {**self.settings, **settings},
            evaluations=points,
            validation_prompts=self.validation_prompts,
            test_prompts=0,
            checkpoints=0,
            tensorboard=False,
            task_options=self.task_options,
            first_point=False,  # the untrained model is the same in every trial
        )


@dataclass(frozen=True)
class TrialRecord:
    """One trial as it ended.

    Attributes:
        number: Of the storage; a trial that was interrupted keeps its number, and is run again under another.
        settings: What was tried.
        state: "complete", "pruned" or "interrupted".
        reward: Mean validation reward at the end, None unless complete.
        last_reward: The same at its last evaluation; None if it had none.
        kl: Mean KL per token at the last evaluation, nats; None where unknown.
        tokens: Tokens spent on it.
        note: Why it ended early; "" if it did not.
    """

    number: int
    settings: dict[str, Any]
    state: str
    reward: float | None
    last_reward: float | None
    kl: float | None
    tokens: int
    note: str


@dataclass(frozen=True)
class Tuned:
    """The outcome.

    Attributes:
        config: What was searched.
        space: Setting → its values.
        max_kl: The bound of the KL: `config.max_kl` above what the untrained agent has as it writes, nats per token.
        trials: In their order.
        best: The one with the highest reward.
        confirmed: How it did with fresh seeds; None if the defaults were best, or it was not asked for.
    """

    config: TuneConfig
    space: dict[str, Range | Choice]
    max_kl: float
    trials: list[TrialRecord]
    best: TrialRecord
    confirmed: dict[str, Any] | None

    @property
    def better(self) -> bool:
        """Whether the best settings are told to be better than the defaults with fresh seeds, within the bound of the KL."""
        if self.confirmed is None or len(self.confirmed["seeds"]) < 2:  # one seed says nothing about others
            return False
        kls = self.confirmed["tuned"].get("kl", [])
        return bool(self.confirmed["gain"]["low"] > 0 and (not kls or fmean(kls) <= self.max_kl))

    @property
    def tokens(self) -> int:
        """Tokens spent in all trials, interrupted ones included."""
        return sum(t.tokens for t in self.trials)


class _TrialEndedError(Exception):
    """Raised between two iterations to end a trial early; nobody else sees it."""


def search_space_of(config: TuneConfig) -> dict[str, Range | Choice]:
    """Return what is searched: what the agent declares, less what is fixed, and less the KL penalty where there is no reference model."""
    factory = installed_plugins().find("agent", config.agent).factory
    space = agent_search_space(factory)
    probe = make_agent(config.agent, config.task, config.task_options, **config.settings)  # bad settings fail here
    if probe.reference_model is None:
        space.pop("kl_coef", None)
    space = {name: values for name, values in space.items() if name not in config.settings}
    if not space or not probe.learns:
        raise InvalidArgumentError(
            f"agent {config.agent!r} has nothing to tune: its class declares no search_space"
            + (f" beside {', '.join(config.settings)}" if config.settings else "")
        )
    return space


def tune(config: TuneConfig, out: str | os.PathLike[str], progress: Progress = lambda *_: None) -> Tuned:
    """Try settings of an agent (Optuna's TPE with median pruning), compare the best ones with the defaults, and write what was found.

    A directory with a part of the same search is continued, with more trials if more are asked for. What a trial is to try depends on the trials
    that ended before it and the seed alone; so an interrupted one is run again with the same settings.

    Args:
        config: What to search.
        out: Directory for the trials' storage and runs, and for tuned.json: the best settings if they are told to be better than the defaults
            with fresh seeds, and else none, for then the defaults stand.
        progress: Called with (tokens spent, tokens of all trials, a word about the state).

    References:
        Akiba et al. 2019, arXiv:1907.10902 (Optuna); Bergstra et al. 2011 (TPE).
    """
    optuna = _optuna()
    space = search_space_of(config)
    path = Path(out)
    continuing = (path / CONFIG_FILE).is_file()
    directory = RunDirectory(path, resume=continuing)
    try:
        described = asdict(config)
        if continuing and {**directory.read_json(CONFIG_FILE), "trials": config.trials, "confirm_seeds": config.confirm_seeds} != described:
            raise RunDirectoryError(f"{path} holds another search: choose another directory")
        directory.write_json(CONFIG_FILE, described)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
        storage = f"sqlite:///{path.resolve() / STORAGE_FILE}"
        study = optuna.create_study(storage=storage, pruner=pruner, study_name="tune", direction="maximize", load_if_exists=True)
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # nobody else holds the directory: it was interrupted
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        max_kl = config.max_kl + _start_kl(config, directory)
        while (ended := len(_ended(study))) < config.trials:
            _run_trial(study, ended, config, space, max_kl, path, progress)
        records = [_record(t) for t in study.get_trials()]
        complete = [r for r in records if r.state == "complete"]
        if not complete:
            advice = "" if any(not r.note.startswith("KL") for r in records) else ": raise max_kl, or fix kl_coef higher"
            raise InvalidArgumentError(
                f"none of {config.trials} trials came to its end with a reward; the first one: {records[0].note}{advice}"
            )
        best = max(complete, key=lambda r: r.reward or 0.0)
        confirmed = _confirm(config, _defaults(config, space), best, path, progress) if config.confirm_seeds else None
        outcome = Tuned(config, space, max_kl, records, best, confirmed)
        if config.confirm_seeds:
            tuned_settings_of(outcome).write(path / TUNED_FILE)
        else:
            (path / TUNED_FILE).unlink(missing_ok=True)
    finally:
        directory.close()
    return outcome


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("textgym tune", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _ended(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


def _defaults(config: TuneConfig, space: Mapping[str, Range | Choice]) -> dict[str, Any]:
    """Return the agent's defaults of the settings that are searched."""
    defaults = agent_settings(installed_plugins().find("agent", config.agent).factory)
    found = {name: defaults[name] for name in space}
    if found.get("kl_coef", 0) is None:
        found["kl_coef"] = DEFAULT_KL_COEF
    return found


def _start_kl(config: TuneConfig, directory: RunDirectory) -> float:
    """Return the KL per token of what the untrained agent writes, nats: 0, unless it writes greedily; 0 where there is no reference model."""
    if not (directory.path / START_FILE).is_file():
        agent = make_agent(config.agent, config.task, config.task_options, **config.settings)
        kl = 0.0
        if agent.reference is not None:
            kl = evaluate(agent, "validation", config.validation_prompts, config.seed, reference=agent.reference).kl
        directory.write_json(START_FILE, {"kl": round(max(0.0, kl), 3) if np.isfinite(kl) else 0.0})
    return float(directory.read_json(START_FILE)["kl"])


def _run_trial(
    study: "Study", index: int, config: TuneConfig, space: Mapping[str, Range | Choice], max_kl: float, path: Path, progress: Progress
) -> None:
    """Run trial `index` of those that end; its settings follow from the ended ones, whatever was interrupted in between."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    study.sampler = TPESampler(seed=1_000 * config.seed + index, n_startup_trials=STARTUP_TRIALS)
    if index == 0 and not study.get_trials(states=[TrialState.WAITING]):
        study.enqueue_trial(_defaults(config, space))
    trial = study.ask({name: _distribution(values) for name, values in space.items()})
    folder = path / "trials" / f"{trial.number:04d}"
    rmtree(folder, ignore_errors=True)
    settings = rounded(trial.params)
    trial.set_user_attr("settings", settings)
    before = sum(t.user_attrs.get("tokens", 0) for t in study.get_trials() if t.number != trial.number)
    total = config.trials * config.seeds * config.tokens
    finals: list[float] = []
    kls: list[float] = []
    spent = 0
    try:
        for seed in range(config.seeds):
            earlier = spent

            def note(done: int, _: int, earlier: int = earlier) -> None:
                nonlocal spent
                spent = earlier + done
                trial.set_user_attr("tokens", spent)
                progress(before + spent, max(total, before + spent), f"trial {index + 1}/{config.trials}, {_best_so_far(study)}")

            steps = itertools.count(seed * (config.points + 2))  # a run may end a little after its last point

            def judge(point: Mapping[str, Any], steps: Iterator[int] = steps) -> None:
                _judge(trial, max_kl, fmean([*finals, float(point["reward"])]), fmean([*kls, float(point["kl"])]), next(steps))

            result = train(config.run(settings, seed, config.points), folder / f"seed-{seed}", note, judge)
            rmtree(folder / f"seed-{seed}" / "agent", ignore_errors=True)
            finals.append(float(result["curve"][-1]["reward"]))
            kls.append(float(result["curve"][-1]["kl"]))
    except (_TrialEndedError, DivergenceError, InvalidArgumentError) as error:
        if index == 0 and isinstance(error, InvalidArgumentError):
            raise  # the defaults must work
        trial.set_user_attr("note", str(error))
        study.tell(trial, state=TrialState.PRUNED)
        return
    study.tell(trial, fmean(finals))


def _judge(trial: "Trial", max_kl: float, reward: float, kl: float, step: int) -> None:
    """Report a point of the curve, the mean with the ends of the seeds before, and end the trial if it is too far away or too bad."""
    if np.isfinite(kl):
        trial.set_user_attr("kl", kl)
    if not np.isfinite(reward):  # the reward gave up every text; such a figure can be neither compared nor stored
        raise _TrialEndedError(f"the validation reward is {reward}: it scored none of the texts")
    trial.report(reward, step)
    if kl > max_kl:
        raise _TrialEndedError(f"KL {kl:.2f} is above {max_kl:g}")
    if trial.should_prune():
        raise _TrialEndedError(f"validation reward {reward:.2f} is below the median")


def _best_so_far(study: "Study") -> str:
    from optuna.trial import TrialState

    values = [t.value for t in study.get_trials(states=[TrialState.COMPLETE], deepcopy=False) if t.value is not None]
    return f"best {max(values):.3f}" if values else "the defaults"


def _distribution(values: Range | Choice) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with three significant digits: what is tried is what is written down."""
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in settings.items()}


def _record(trial: "FrozenTrial") -> TrialRecord:
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "interrupted")
    attributes = trial.user_attrs
    return TrialRecord(
        trial.number,
        dict(attributes.get("settings", rounded(trial.params))),
        state,
        trial.value if state == "complete" else None,
        trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None,
        attributes.get("kl"),
        int(attributes.get("tokens", 0)),
        attributes.get("note", ""),
    )


# --- the defaults and the best settings, with fresh seeds ------------------------------------------------------------------------


def _confirm(config: TuneConfig, defaults: Mapping[str, Any], best: TrialRecord, path: Path, progress: Progress) -> dict[str, Any] | None:
    """Train defaults and best settings with fresh seeds and compare their texts on validation prompts; None if they are the same."""
    if best.settings == rounded(defaults):
        return None
    seeds = range(FRESH_SEED, FRESH_SEED + config.confirm_seeds)
    measured: dict[str, list[dict[str, Any]]] = {}
    total = 2 * len(seeds) * config.tokens
    for kind, settings in (("defaults", {}), (f"trial-{best.number:04d}", best.settings)):
        for seed in seeds:
            progress(sum(map(len, measured.values())) * config.tokens, total, f"with fresh seeds: {kind}, seed {seed}")
            measured.setdefault(kind, []).append(_measure(config, settings, seed, path / "confirm" / f"{kind}-{seed}"))
    progress(total, total, "")
    before, after = measured.values()
    gain = difference(np.array([m["rewards"] for m in after]), np.array([m["rewards"] for m in before]))
    figures = ("reward", "gold", "kl", "distinct_2")
    return {
        "seeds": list(seeds),
        "validation_prompts": config.validation_prompts,
        **{
            name: {f: [round(m[f], 4) for m in runs] for f in figures if all(m[f] is not None for m in runs)}
            for name, runs in (("defaults", before), ("tuned", after))
        },
        "gain": {name: round(value, 4) for name, value in asdict(gain).items()},
    }


def _measure(config: TuneConfig, settings: Mapping[str, Any], seed: int, path: Path) -> dict[str, Any]:
    """Return figures of one run on validation prompts, rewards of the texts included; run, or gone on with, unless they are there."""
    file = path / CONFIRMED_FILE
    if not file.is_file():
        if (path / CONFIG_FILE).is_file():
            resume(path)
        else:
            train(replace(config.run(settings, seed, 0), checkpoints=2), path)
        agent = load_agent(path / "agent", **{"device": "auto", **{k: v for k, v in config.settings.items() if k == "device"}})
        found = evaluate(agent, "validation", config.validation_prompts, seed, agent.task.gold, agent.reference)
        summary = {name: value if np.isfinite(value) else None for name, value in found.summary().items()}
        directory = RunDirectory(path, resume=True)
        directory.write_json(CONFIRMED_FILE, {**summary, "rewards": found.rewards})
        directory.close()
        rmtree(path / "agent", ignore_errors=True)
        rmtree(path / "checkpoints", ignore_errors=True)
    directory = RunDirectory(path, resume=True)
    directory.close()
    return dict(directory.read_json(CONFIRMED_FILE))


def tuned_settings_of(outcome: Tuned) -> TunedSettings:
    """Return what was found as data to ship, with how it was found."""
    config, trials = outcome.config, outcome.trials
    counts = {state: sum(t.state == state for t in trials) for state in ("complete", "pruned", "interrupted")}
    found = {
        "command": config.command,
        "trials": counts,
        "tokens_per_run": config.tokens,
        "tokens_of_all_trials": outcome.tokens,
        "seeds": list(range(config.seeds)),
        "split": "validation",
        "validation_prompts": config.validation_prompts,
        "search_space": {name: str(values) for name, values in outcome.space.items()},
        "reward_of_the_defaults": _rounded(
            next((t.reward for t in trials if t.settings == trials[0].settings and t.reward is not None), None)
        ),
        "reward_of_the_best": _rounded(outcome.best.reward),
        "best": outcome.best.settings,
    }
    objective = (
        f"mean reward of the texts on validation prompts after {config.tokens:,} tokens, KL at most {outcome.max_kl:g} nats per token"
    )
    return TunedSettings(
        find_task_name(config.task),
        config.agent,
        outcome.best.settings if outcome.better else {},
        objective,
        found,
        outcome.confirmed or {},
        config.settings,
        {p: version(p) for p in (*PACKAGES, "optuna")},
    )


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)
