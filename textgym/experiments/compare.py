"""Comparison: agents × seeds at equal budgets, run side by side, judged on held-out prompts with common random numbers."""

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from textgym.agent import agent_settings, check_settings
from textgym.errors import InvalidArgumentError, RewardError, RunDirectoryError, TextgymError, one_line
from textgym.experiments.budget import Budget, read_budget
from textgym.experiments.run_directory import CONFIG_FILE, RESULT_FILE, RunDirectory, load_result
from textgym.experiments.statistics import Estimate, difference, iqm_interval, mean_interval, probability_of_improvement
from textgym.experiments.train import TrainConfig, read_config, resume, train
from textgym.files import write_text
from textgym.plugin_manager import installed_plugins
from textgym.processes import worker_pool
from textgym.tasks import find_task_name, make_task
from textgym.tuned_settings import find_tuned_settings

CONTROL = "base"
MAX_PAIRS = 15  # of agents, listed one by one: more than that nobody reads
COSTS = ("tokens_generated", "tokens_trained", "texts_scored", "scored_per_text", "seconds", "peak_memory", "tokens_per_second")
LABEL_FIGURES = ("accuracy", "precision", "recall", "f1", "majority")
FIGURES = ("reward", "gold", *LABEL_FIGURES, "kl", "perplexity", "distinct_1", "distinct_2", "length", "stopped", *COSTS)


@dataclass(frozen=True)
class CompareConfig:
    """A comparison.

    Attributes:
        task: Registered task, short or full name.
        agents: Registered agents; the control "base" is always added.
        seeds: Number of seeds, 0 ... seeds − 1, the same for every agent.
        tokens: Token budget of each run.
        settings: Settings of all agents that have them (reward, model, learning_rate, ...); "AGENT.NAME" is a setting of that agent alone.
        evaluations, validation_prompts, test_prompts, task_options, budget: See `TrainConfig`.
    """

    task: str
    agents: tuple[str, ...]
    seeds: int = 3
    tokens: int = 20_000
    settings: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 5
    validation_prompts: int = 64
    test_prompts: int = 128
    task_options: dict[str, Any] = field(default_factory=dict)
    budget: str = ""

    def __post_init__(self) -> None:
        _ = self.spending  # bad input fails here
        for name in ("seeds", "evaluations", "validation_prompts", "test_prompts"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} of a comparison must be at least 1, got {getattr(self, name)}")
        if not set(self.agents) - {CONTROL}:
            raise InvalidArgumentError(f"a comparison needs at least one agent beside the control {CONTROL!r}: name some")
        factories = {agent: installed_plugins().find("agent", agent).factory for agent in (*self.agents, CONTROL)}
        known = {name for factory in factories.values() for name in agent_settings(factory)}
        for name in self.settings:
            owner = name.rpartition(".")[0]
            if owner and owner not in map(_option_name, factories):
                raise InvalidArgumentError(f"the setting {name!r} is for an agent that is not compared: agents: {', '.join(self.agents)}")
            if not owner and name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                raise InvalidArgumentError(f"none of the agents {', '.join(factories)} has a setting {name!r}{hint}")
        for agent, factory in factories.items():
            check_settings(agent, factory, self.settings_of(agent))

    @property
    def spending(self) -> Budget:
        """What each run may spend on learning."""
        return read_budget(self.budget) if self.budget else Budget("tokens", self.tokens)

    def settings_of(self, agent: str) -> dict[str, Any]:
        """Return the settings of one agent: those of all that it has, overridden by its own."""
        known = agent_settings(installed_plugins().find("agent", agent).factory)
        shared = {name: value for name, value in self.settings.items() if name in known}
        prefix = f"{_option_name(agent)}."
        return {**shared, **{name.removeprefix(prefix): value for name, value in self.settings.items() if name.startswith(prefix)}}

    def runs(self) -> list[tuple[str, TrainConfig]]:
        """Return the name and configuration of every run, the long ones first."""
        agents = [*(a for a in dict.fromkeys(self.agents) if a != CONTROL), CONTROL]
        return [
            (
                _run_name(agent, seed),
                TrainConfig(
                    self.task,
                    agent,
                    self.tokens,
                    seed,
                    self.settings_of(agent),
                    self.evaluations if agent != CONTROL else 1,
                    self.validation_prompts,
                    self.test_prompts,
                    checkpoints=4 if agent != CONTROL else 0,
                    tensorboard=agent != CONTROL,
                    task_options=self.task_options,
                    budget=self.budget,
                ),
            )
            for agent in agents
            for seed in range(self.seeds)
        ]


def tuned_settings_of_all(task: str, agents: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings that were tuned for a task, by agent; those for whom there are none, or whose defaults stand, are left out."""
    found = {agent: find_tuned_settings(agent, find_task_name(task)) for agent in agents}
    return {agent: dict(tuned.settings) for agent, tuned in found.items() if tuned is not None and tuned.settings}


def with_tuned(settings: Mapping[str, Any], tuned: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of a comparison with tuned ones of single agents; one that is given, for all or for the agent, wins."""
    return {
        **{f"{_option_name(agent)}.{n}": v for agent, values in tuned.items() for n, v in values.items() if n not in settings},
        **settings,
    }


def _run_name(agent: str, seed: int) -> str:
    return f"{agent}-{seed}"


def _option_name(agent: str) -> str:
    """Return an agent's name as it stands in a setting, where hyphens are underscores."""
    return agent.replace("-", "_")


@dataclass(frozen=True)
class Row:
    """One agent's line in the comparison: figures averaged over seeds, reward and gold as IQM with interval, gain over the control.

    For a task with labels also the accuracy, a mean with interval.
    """

    agent: str
    reward: Estimate
    gold: Estimate | None
    gain: Estimate
    gold_gain: Estimate | None
    figures: dict[str, float]
    accuracy: Estimate | None = None


@dataclass(frozen=True)
class Pair:
    """Two agents: mean difference of the reward, probability that the first is better, and whether that can be told at all."""

    first: str
    second: str
    difference: Estimate
    probability: Estimate

    @property
    def verdict(self) -> str:
        """The result in words."""
        if not self.difference.excludes_zero:
            return "not distinguishable"
        better, worse = (self.first, self.second) if self.difference.value > 0 else (self.second, self.first)
        return f"{better} is better than {worse}"


@dataclass(frozen=True)
class Standing:
    """One agent among the others: those that it is better than, and those that it cannot be told from; the rest are better."""

    agent: str
    better_than: tuple[str, ...]
    like: tuple[str, ...]

    def __str__(self) -> str:
        """The standing in words."""
        parts = [f"better than {', '.join(self.better_than)}"] if self.better_than else []
        parts += [f"not distinguishable from {', '.join(self.like)}"] if self.like else []
        return f"{self.agent}: {'; '.join(parts) or 'worse than all others'}"


@dataclass(frozen=True)
class Failure:
    """A run that an error ended: whose, and the error in one line."""

    agent: str
    seed: int
    error: str

    @property
    def run(self) -> str:
        """The run's name."""
        return _run_name(self.agent, self.seed)


@dataclass(frozen=True)
class Comparison:
    """The outcome: results of all runs by agent (seeds in order), one row per agent, one verdict per pair.

    An agent one of whose runs failed is in none of them: to leave out the seeds with which it fails would be to choose its best ones.
    """

    config: CompareConfig
    results: dict[str, list[dict[str, Any]]]
    rows: list[Row]
    pairs: list[Pair]
    failures: list[Failure] = field(default_factory=list)

    @property
    def standings(self) -> list[Standing]:
        """Every agent's standing, the largest gain first."""
        order = [row.agent for row in sorted(self.rows, key=lambda row: -row.gain.value)]
        told = {(p.first, p.second): (p.difference.value if p.difference.excludes_zero else 0.0) for p in self.pairs}
        told |= {(b, a): -value for (a, b), value in told.items()}
        return [
            Standing(
                agent,
                tuple(other for other in order if other != agent and told[agent, other] > 0),
                tuple(other for other in order if other != agent and told[agent, other] == 0),
            )
            for agent in order
        ]

    @property
    def failed_seeds(self) -> dict[str, list[int]]:
        """The seeds with which each agent that failed did so."""
        return {agent: [f.seed for f in self.failures if f.agent == agent] for agent in dict.fromkeys(f.agent for f in self.failures)}


Progress = Callable[[int, int, str], None]


def compare(
    config: CompareConfig, out: str | os.PathLike[str], n_workers: int | None = None, progress: Progress = lambda *_: None
) -> Comparison:
    """Run every agent with every seed, in parallel processes of one thread each, and judge them.

    A directory with a part of the same comparison, or of one with other agents or seeds, is continued: finished runs are kept, interrupted and
    failed ones resumed. A run that fails does not stop the others; the agents all of whose runs have ended are judged.

    Args:
        config: What to compare.
        out: Directory for the runs, results.csv and report.html.
        n_workers: Processes; the number of cores by default.
        progress: Called with (spent, budget of all runs, a word about the state).
    """
    from textgym.envs.build import build_mdp

    settings = {k: v for k, v in config.settings.items() if k in ("reward", "model", "max_new_tokens")}
    build_mdp(config.task, 1, **settings, **config.task_options)  # bad names fail here
    path = Path(out)
    continuing = (path / CONFIG_FILE).is_file()
    directory = RunDirectory(path, resume=continuing)
    try:
        if continuing:
            _refuse_other_runs(config, directory)
        directory.write_json(CONFIG_FILE, asdict(config))
        failures = _run_all(config, path, n_workers or os.cpu_count() or 1, progress)
        comparison = judge(config, path, failures)
        write_results(comparison, path / "results.csv")
    finally:
        directory.close()
    return comparison


def _refuse_other_runs(config: CompareConfig, directory: RunDirectory) -> None:
    """Raise if a directory holds no comparison, or one with a run that has another configuration."""
    found = directory.read_json(CONFIG_FILE)
    if not isinstance(found, dict) or "agents" not in found:
        raise RunDirectoryError(f"{directory.path} holds no comparison to go on with: choose another directory")
    for name, run in config.runs():
        stored = read_config(directory.path / "runs" / name)
        if stored is not None and stored != TrainConfig(**json.loads(json.dumps(asdict(run)))):
            raise RunDirectoryError(
                f"{directory.path} holds another comparison, whose run {name} has other settings: choose another directory, or remove that run"
            )


def _run_all(config: CompareConfig, path: Path, n_workers: int, progress: Progress) -> list[Failure]:
    """Run what has no result yet; return the runs that failed, in the order of the runs."""
    runs = config.runs()
    errors: dict[str, str] = {}
    amount = math.ceil(config.spending.amount)
    total = sum(amount for _, c in runs if c.agent != CONTROL)
    with worker_pool(min(n_workers, len(runs))) as pool:
        waiting: dict[Future[str], str] = {pool.submit(_run_one, c, str(path / "runs" / name)): name for name, c in runs}
        n_runs, started = len(waiting), time.monotonic()
        while waiting:
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                name = waiting.pop(future)
                try:
                    errors[name] = future.result()
                except BrokenProcessPool:
                    raise RunDirectoryError(f"run {name} in {path} was killed; start the same comparison again to continue it") from None
            spent = sum(_spent(path / "runs" / name, amount) for name, c in runs if c.agent != CONTROL)
            failed = f", {n_failed} failed" if (n_failed := sum(map(bool, errors.values()))) else ""
            progress(spent, total, f"{n_runs - len(waiting)}/{n_runs} runs{failed}, {time.monotonic() - started:.0f} s")
    return [Failure(c.agent, c.seed, errors[name]) for name, c in runs if errors[name]]


def _run_one(config: TrainConfig, path: str) -> str:
    """Run, or go on with, one run; return the error that ended it in one line, "" for none."""
    status = Path(path) / "spent.txt"

    def note(spent: int, _: int) -> None:
        status.write_text(str(spent))

    try:
        if (Path(path) / CONFIG_FILE).is_file():
            resume(path, note)
        else:
            train(config, path, note)
    except TextgymError as error:
        return one_line(error)
    return ""


def _spent(run: Path, budget: int) -> int:
    if (run / RESULT_FILE).is_file():
        return budget
    try:
        return min(budget, int((run / "spent.txt").read_text() or 0))
    except (OSError, ValueError):
        return 0


def judge(config: CompareConfig, path: Path, failures: Sequence[Failure] = ()) -> Comparison:
    """Read the results of all runs and compare the agents none of whose runs failed."""
    results: dict[str, list[dict[str, Any]]] = {}
    failed = {failure.agent: failure for failure in failures}
    if CONTROL in failed:
        raise RunDirectoryError(
            f"run {failed[CONTROL].run} in {path} failed, and without it nothing can be compared: {failed[CONTROL].error}"
        )
    for name, run in config.runs():
        if run.agent in failed:
            continue
        result = load_result(path / "runs" / name)
        if result is None:
            raise RunDirectoryError(f"run {name} in {path} has no result; start the same comparison again to continue it")
        results.setdefault(run.agent, []).append(dict(result))
    rewards = _complete({agent: np.array([r["rewards"] for r in found]) for agent, found in results.items()})
    golds = _complete({agent: np.array([r["golds"] for r in found]) for agent, found in results.items()})
    has_gold = all(g.size for g in golds.values())
    labels = make_task(config.task, **config.task_options).labels
    rows = []
    for agent, found in results.items():
        names = [*FIGURES, *(f"{f}_{label}" for label in labels for f in ("precision", "recall", "f1"))]
        figures = {f: float(np.mean([r[f] for r in found])) for f in names if all(r.get(f) is not None for r in found)}
        correct = np.array([r.get("correct", []) for r in found])
        rows.append(
            Row(
                agent,
                iqm_interval(rewards[agent]),
                iqm_interval(golds[agent]) if has_gold else None,
                difference(rewards[agent], rewards[CONTROL]),
                difference(golds[agent], golds[CONTROL]) if has_gold else None,
                figures,
                mean_interval(correct) if correct.size else None,
            )
        )
    pairs = [
        Pair(a, b, difference(rewards[a], rewards[b]), probability_of_improvement(rewards[a], rewards[b]))
        for a, b in combinations(results, 2)
    ]
    return Comparison(config, results, rows, pairs, list(failures))


def _complete(scores: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the scores, (seeds, prompts) by agent, of the prompts on which no run has a dropped one: the comparison is paired."""
    keep = np.all([np.isfinite(s).all(0) for s in scores.values()], 0)
    if keep.size and not keep.any():
        raise RewardError("the reward gave up a text for every test prompt in one run or another: nothing can be compared")
    return {agent: s[:, keep] for agent, s in scores.items()} if keep.size else scores


def write_results(comparison: Comparison, path: Path) -> None:
    """Write results.csv, one row per run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["agent", "seed", "tokens", *FIGURES])
    for agent, results in comparison.results.items():
        for r in results:
            writer.writerow([agent, r["seed"], r["tokens"], *(r.get(f, "") for f in FIGURES)])
    write_text(path, text.getvalue())
