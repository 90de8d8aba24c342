"""Tuned settings: values found for one agent on one task, with how they were found - data that plugins ship."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError
from textgym.files import write_text
from textgym.plugin_manager import installed_plugins


@dataclass(frozen=True)
class TunedSettings:
    """What a search for settings came to, and the evidence.

    Attributes:
        task: Full name of the task, "ReviewContinuation-v0".
        agent: Registered name of the agent.
        settings: What to pass to `make_agent`: better than the defaults with fresh seeds; none where the defaults stand.
        objective: What was maximised, in words.
        found: The search: command, trials, tokens, seeds, prompts, search space, and the settings of the best trial.
        confirmed: Defaults and those of the best trial with fresh seeds: reward, gold score and KL per seed, and the gain with its interval;
            empty where the defaults were the best trial.
        given: Settings that were fixed in the search (reward, model, ...); the result holds for these.
        versions: Package → version.
    """

    task: str
    agent: str
    settings: Mapping[str, Any]
    objective: str
    found: Mapping[str, Any]
    confirmed: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name by which it is registered."""
        return registered_name(self.agent, self.task)

    def write(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        write_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def registered_name(agent: str, task: str) -> str:
    """Return the name of an agent's tuned settings for a task, "ppo@ReviewContinuation-v0"."""
    return f"{agent}@{task}"


@dataclass(frozen=True)
class TunedSettingsFile:
    """A factory that reads tuned settings from a JSON file when it is called."""

    path: Path

    def __post_init__(self) -> None:
        # what `textgym list` shows of a factory
        object.__setattr__(self, "__doc__", f"What a search for settings of {self.path.stem} on {self.path.parent.name} came to.")

    def __call__(self) -> TunedSettings:
        """Read the file."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"tuned settings {self.path} cannot be read: {error}") from None
        names = {f.name for f in fields(TunedSettings)}
        if not isinstance(data, dict) or not {"task", "agent", "settings", "objective", "found", "confirmed"} <= set(data) <= names:
            raise InvalidArgumentError(f"tuned settings {self.path} must hold {', '.join(sorted(names))}")
        return TunedSettings(**data)


def tuned_settings_files(folder: Path) -> dict[str, TunedSettingsFile]:
    """Return the factories of a folder of files TASK/AGENT.json by name, for a plugin's `register_tuned_settings`; reads no file."""
    return {registered_name(path.stem, path.parent.name): TunedSettingsFile(path) for path in sorted(folder.glob("*/*.json"))}


def find_tuned_settings(agent: str, task: str) -> TunedSettings | None:
    """Return what an installed plugin ships for an agent on a task (full name), or None."""
    name = registered_name(agent, task)
    if name not in installed_plugins().registrations("tuned_setting"):
        return None
    found = installed_plugins().make("tuned_setting", name, {})
    if not isinstance(found, TunedSettings):
        raise InvalidArgumentError(f"tuned settings {name!r} are {found!r}, not TunedSettings")
    return found
