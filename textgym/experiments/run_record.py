"""RunRecord: what a training run has left in its directory, read for a diagnosis."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.agent import agent_settings
from textgym.errors import RunDirectoryError, TextgymError, one_line
from textgym.experiments.run_directory import CONFIG_FILE, EVALUATIONS_FILE, FAILURE_FILE, METRICS_FILE, RESULT_FILE, read_json
from textgym.plugin_manager import installed_plugins
from textgym.tasks import Task, make_task

SOLVED = 0.9  # of a task's greatest possible reward: enough to call a policy that is certain of itself right


@dataclass(frozen=True)
class Curve:
    """A metric over a run: tokens spent and values, (n,) each, in order; rows without the metric are left out, values may be nan."""

    tokens: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def finite(self) -> "Curve":
        """The same without values that are not numbers."""
        keep = np.isfinite(self.values)
        return Curve(self.tokens[keep], self.values[keep])

    @property
    def first_third(self) -> NDArray[np.float64]:
        """The earliest third of the values, at least one if there is one."""
        return self.values[: math.ceil(len(self) / 3)]

    @property
    def last_third(self) -> NDArray[np.float64]:
        """The latest third of the values, at least one if there is one."""
        return self.values[len(self) - math.ceil(len(self) / 3) :]


@dataclass(frozen=True)
class RunRecord:
    """A run as its directory tells it.

    Attributes:
        agent: Registered name.
        settings: As given.
        rows: Of metrics.csv, one per iteration.
        evaluations: Points of the learning curve on validation prompts.
        task: None where it cannot be made here.
        defaults: The agent's settings with their defaults; empty where it cannot be found here.
        failure: The error that stopped it; "" for none.
        finished: Whether there is a result.
    """

    agent: str
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]
    evaluations: Sequence[Mapping[str, Any]]
    task: Task | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    finished: bool = True

    def curve(self, name: str) -> Curve:
        """Return a metric; empty if it was not logged."""
        found = [(int(row["tokens"]), float(row[name])) for row in self.rows if row.get(name)]
        return Curve(np.array([t for t, _ in found], np.int64), np.array([v for _, v in found], np.float64))

    def names(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Return the metrics with such a name."""
        return [name for name in (self.rows[0] if self.rows else ()) if name.startswith(prefix) and name.endswith(suffix)]

    def setting(self, name: str, otherwise: Any = None) -> Any:
        """Return a setting as given, or its default, or `otherwise` if the agent has none of that name."""
        return self.settings.get(name, self.defaults.get(name, otherwise))

    @property
    def solved(self) -> bool:
        """Whether the task has a greatest possible reward, and the policy gets nearly that."""
        best = None if self.task is None or self.settings.get("reward") is not None else self.task.perfect_score
        rewards = [*self.curve("rollout/ep_rew_mean").finite.last_third.tolist(), *(p["reward"] for p in self.evaluations[-1:])]
        return best is not None and any(reward >= SOLVED * best for reward in rewards)


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Read the directory of a training run, finished or not.

    Raises:
        RunDirectoryError: It is none, or one of its files is damaged; the message names the file.
    """
    folder = Path(path)
    if (folder / "runs").is_dir():
        runs = ", ".join(sorted(f.name for f in (folder / "runs").iterdir() if f.is_dir())[:6])
        raise RunDirectoryError(f"{folder} holds a comparison: name one of its runs in {folder / 'runs'}: {runs}")
    config = read_json(folder / CONFIG_FILE)
    if isinstance(config, dict) and "trials" in config:
        runs = ", ".join(sorted(str(f.relative_to(folder)) for f in folder.glob("trials/*/seed-*"))[:6])
        raise RunDirectoryError(f"{folder} holds a search for settings: name one of its runs: {runs or 'none has begun'}")
    if not isinstance(config, dict) or not {"task", "agent", "settings"} <= set(config):
        raise RunDirectoryError(f"{folder} is no directory of a training run: it has no {CONFIG_FILE} that names task, agent and settings")
    rows = _read_metrics(folder / METRICS_FILE)
    failure = _read(folder / FAILURE_FILE, dict) or {}
    evaluations = _read(folder / EVALUATIONS_FILE, list) or []
    task, defaults = None, dict[str, Any]()
    try:  # of plugins that may not be installed here
        task = make_task(config["task"], **config.get("task_options", {}))
        defaults = agent_settings(installed_plugins().find("agent", config["agent"]).factory)
    except TextgymError:
        pass
    return RunRecord(
        config["agent"],
        config["settings"],
        rows,
        evaluations,
        task,
        defaults,
        str(failure.get("error", "")),
        (folder / RESULT_FILE).is_file(),
    )


def _read(file: Path, kind: type) -> Any:
    """Return what a JSON file holds, None if it is not there; anything but a `kind` raises."""
    found = read_json(file)
    if found is not None and not isinstance(found, kind):
        raise RunDirectoryError(f"{file} is damaged: it should hold a JSON {'object' if kind is dict else 'array'}, got {str(found)!r:.60}")
    return found


def _read_metrics(file: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, whose values are numbers or empty; none if there is no such file."""
    if not file.is_file():
        return []
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}") from None
    for number, row in enumerate(rows, 2):  # the header is line 1
        try:
            int(row["tokens"])
            _ = [float(value) for value in row.values() if value]
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(f"{file} is damaged in line {number}: {one_line(error)}") from None
    return rows
