"""`textgym doctor`: is this installation sound?"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from textgym.plugin_manager import installed_plugins

PACKAGES = ("textgym", "torch", "transformers", "stable-baselines3", "sb3-contrib", "gymnasium", "pluggy", "numpy")


@click.command("doctor", epilog="Example: textgym doctor")
def doctor_command() -> None:
    """Show versions, devices and skipped plugins, and write a text with the bundled model; exit code 1 if something is wrong."""
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        try:
            click.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            click.echo(f"{package} not installed")
    import torch

    cuda = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "none"
    click.echo(f"CUDA devices: {cuda}; CPU threads: {torch.get_num_threads()}")
    from textgym.agent import make_agent

    text = make_agent("base", "ReviewContinuation", n_envs=1, device="cpu").generate(["The movie"], seed=0)[0]
    click.echo(f"bundled model writes: {text!r}")
    for problem in installed_plugins().problems:
        click.secho(f"skipped: {problem}", fg="yellow")
    sys.exit(1 if installed_plugins().problems else 0)
