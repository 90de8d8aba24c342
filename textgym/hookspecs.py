"""The seven hooks of textgym. A plugin implements any of them with `@textgym.hookimpl`."""

from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("textgym")
hookimpl = pluggy.HookimplMarker("textgym")


@hookspec
def register_rewards(register: Any) -> None:
    """Add reward models: call `register(name, factory)`; the factory's keyword options become the reward's settings."""


@hookspec
def register_tasks(register: Any) -> None:
    """Add tasks: call `register("Name-v0", factory)`, which returns a `textgym.Task`; or `register("name", textgym.Family(...))` for many."""


@hookspec
def register_models(register: Any) -> None:
    """Add language models: call `register(name, factory)` with a factory returning a directory, a .gguf file or a hub id."""


@hookspec
def register_judgements(register: Any) -> None:
    """Add human judgements: call `register(name, factory)` with a factory returning a `JudgementSet`."""


@hookspec
def register_agents(register: Any) -> None:
    """Add agents: call `register(name, factory)` with a subclass of `textgym.agent.Agent`, or "package.module:Class"."""


@hookspec
def register_tuned_settings(register: Any) -> None:
    """Add tuned settings: call `register("AGENT@Task-v0", factory)` with a factory returning `TunedSettings`; see `tuned_settings_files`."""


@hookspec
def register_commands(cli: Any) -> None:
    """Add commands: decorate functions with `@cli.command()`; `cli` is the `textgym` click group."""
