"""`textgym doctor`: is this installation sound, or a training run?"""

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import click

from textgym.errors import InvalidArgumentError
from textgym.plugin_manager import installed_plugins

PACKAGES = ("textgym", "torch", "transformers", "stable-baselines3", "sb3-contrib", "gymnasium", "pluggy", "numpy")


@click.command("doctor", epilog="Example: textgym doctor runs/x")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the findings about RUN as one JSON object.")
def doctor_command(run: str | None, as_json: bool) -> None:
    """Name what is wrong with the training run in the directory RUN, from its metrics; without RUN, look at the installation.

    For each finding: what was seen and when, what it likely comes from, what to do. A run may be looked at while it learns. Without RUN: versions,
    devices, skipped plugins, and a text of the bundled model. Exit code 1 if something is wrong.
    """
    if run is None:
        if as_json:
            raise InvalidArgumentError("--json is for findings about a run: name its directory")
        _installation()
    else:
        _run(run, as_json)


def _run(path: str, as_json: bool) -> None:
    from textgym.experiments.diagnosis import RULES, diagnose
    from textgym.experiments.run_record import read_run

    run = read_run(path)
    findings = diagnose(run)
    if as_json:
        data = {"run": path, "agent": run.agent, "finished": run.finished, "iterations": len(run.rows)}
        click.echo(json.dumps({**data, "findings": [asdict(f) for f in findings]}, ensure_ascii=False))
        sys.exit(1 if findings else 0)
    for finding in findings:
        click.secho(f"{finding.name} (at {finding.tokens:,} tokens)", fg="yellow", bold=True)
        click.echo(f"  seen:   {finding.seen}")
        click.echo(f"  likely: {finding.causes}")
        click.echo(f"  do:     {finding.advice}")
    state = "" if run.finished else ", not finished"
    if not run.rows:
        click.echo(f"{path}: {run.agent}, no metrics{state}: there is nothing to look at")
    elif findings:
        click.echo(f"{path}: {run.agent}, {len(run.rows)} iterations{state}: {len(findings)} of {len(RULES)} rules found something")
    else:
        click.echo(f"{path}: {run.agent}, {len(run.rows)} iterations{state}: healthy by {len(RULES)} rules")
    sys.exit(1 if findings else 0)


def _installation() -> None:
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
