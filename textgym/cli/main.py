"""The `textgym` command: parse, call one function, print."""

import os
import sys
import warnings
from typing import Any

import click

from textgym.cli.compare import compare_command
from textgym.cli.doctor import doctor_command
from textgym.cli.generate import generate_command
from textgym.cli.listing import list_command
from textgym.cli.new_reward import new_reward_command
from textgym.cli.overoptimize import overoptimize_command
from textgym.cli.rate import rate_command
from textgym.cli.reward import reward_group
from textgym.cli.reward_data import data_command
from textgym.cli.reward_discriminate import discriminate_command
from textgym.cli.reward_evaluate import evaluate_command
from textgym.cli.reward_explain import explain_command
from textgym.cli.reward_fit import fit_command
from textgym.cli.reward_harden import harden_command
from textgym.cli.train import train_command
from textgym.cli.tune import tune_command
from textgym.errors import PluginWarning, TextgymError
from textgym.plugin_manager import installed_plugins


@click.group(epilog="Example: textgym compare ReviewContinuation --agents ppo,a2c,reinforce --out runs/y")
@click.version_option(package_name="textgym")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train, compare and use agents that write text."""
    del debug  # read by main before click parses, so that it also covers errors of parsing


for command in (
    list_command,
    doctor_command,
    train_command,
    compare_command,
    tune_command,
    generate_command,
    reward_group,
    new_reward_command,
    rate_command,
    overoptimize_command,
):
    cli.add_command(command)
for command in (data_command, fit_command, discriminate_command, evaluate_command, explain_command, harden_command):
    reward_group.add_command(command)


def main() -> None:
    """Run the command line: exit code 0 on success, 2 with one line on bad input, 1 on any other error."""
    # two busy threads on shared cores spin against each other; must be set before torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    debug = "--debug" in sys.argv
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # takes the rest as *_
    try:
        installed_plugins().call_register_commands(cli)
        cli.main(standalone_mode=False)
    except TextgymError as error:
        if debug:
            raise
        _fail(" ".join(str(error).split()), 2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; a run directory can be continued", 130)
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {' '.join(str(error).split())} (run with --debug for the traceback)", 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"textgym: {message}", err=True)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, PluginWarning):
        click.echo(f"textgym: {message}", err=True)
    elif not issubclass(category, (DeprecationWarning, FutureWarning)):
        click.echo(f"textgym: warning: {message}", err=True)


if __name__ == "__main__":
    main()
