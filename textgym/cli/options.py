"""Options that several commands share, and how their texts become values."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from textgym.errors import InvalidArgumentError

BUDGET_HELP = "Another budget instead of --tokens: tokens-trained=N, texts-scored=N or seconds=N (of learning, without evaluations)."
F = TypeVar("F", bound=Callable[..., Any])


def agent_options(function: F) -> F:
    """Add the options that become settings of an agent."""
    for option in (
        click.option("--reward", help='Reward: a name, or weights like \'{"human-rating": 1, "repetition": -0.5}\'.'),
        click.option("--model", help="Language model: a name, a directory, a .gguf file or a hub id."),
        click.option("--max-new-tokens", type=int, help="Token budget of a text."),
        click.option("--n-envs", type=int, help="Episodes run side by side."),
        click.option("--device", help='"auto", "cpu", "cuda", ...'),
        click.option("--dtype", help='Of the weights: "float32", "bfloat16".'),
        click.option(
            "--set", "extra", multiple=True, metavar="NAME=VALUE", help="Any other setting of the agent, e.g. learning_rate=1e-4."
        ),
        click.option("--task-set", "task_extra", multiple=True, metavar="NAME=VALUE", help="An option of the task, e.g. seed=1."),
    ):
        function = option(function)
    return function


def settings_from(extra: tuple[str, ...], **named: Any) -> dict[str, Any]:
    """Return the settings that were given; `extra` are texts NAME=VALUE, the value read as JSON where it is JSON."""
    settings = {name: value for name, value in named.items() if value is not None}
    if "reward" in settings and settings["reward"].lstrip().startswith("{"):
        try:
            settings["reward"] = json.loads(settings["reward"])
        except json.JSONDecodeError as error:
            raise InvalidArgumentError(f"--reward {settings['reward']!r} is not JSON: {error}") from None
    return {**settings, **named_values(extra, "--set")}


def named_values(texts: tuple[str, ...], option: str) -> dict[str, Any]:
    """Return texts NAME=VALUE as a mapping, the value read as JSON where it is JSON; `option` is named in errors."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidArgumentError(f"{option} wants NAME=VALUE, got {text!r}")
        try:
            values[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            values[name.replace("-", "_")] = value
    return values


def check_page(path: Path | None) -> None:
    """Raise if a page cannot be written where it is asked for: before the work, not after it."""
    if path is not None and not path.parent.is_dir():
        raise InvalidArgumentError(f"--out {path}: there is no folder {path.parent}; make it, or choose another")
    if path is not None and path.is_dir():
        raise InvalidArgumentError(f"--out {path} is a folder; give the name of a file, such as {path / 'report.html'}")


def set_threads(threads: int) -> None:
    """Keep torch to a number of threads: small models are fastest with one."""
    import torch

    if threads < 1:
        raise InvalidArgumentError(f"--threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)
