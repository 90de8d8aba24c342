"""`textgym tune`: search for an agent's settings on a task."""

from pathlib import Path
from typing import Any

import click

from textgym.cli.compare import aligned
from textgym.cli.options import agent_options, set_threads, settings_from
from textgym.cli.progress import progress_bar


@click.command("tune", epilog="Example: textgym tune ReviewContinuation --agent ppo --trials 12 --tokens 5000 --out runs/tune-ppo")
@click.argument("task")
@click.option("--agent", default="ppo", show_default=True, help="Registered agent.")
@click.option("--trials", default=20, show_default=True, help="Settings to try; the first trial has the defaults.")
@click.option("--tokens", default=5_000, show_default=True, help="Tokens of one run.")
@click.option("--seeds", default=1, show_default=True, help="Runs per trial; their mean counts.")
@click.option(
    "--max-kl",
    default=1.0,
    show_default=True,
    help="Nats per token that a policy may be away from the model it starts from, beside what greedy writing costs.",
)
@click.option("--points", default=3, show_default=True, help="Evaluations of a run, at each of which it may be pruned.")
@click.option("--validation-prompts", default=128, show_default=True, help="Prompts of an evaluation.")
@click.option(
    "--confirm-seeds", default=3, show_default=True, help="Fresh seeds with which the best are compared with the defaults; 0 for none."
)
@click.option("--seed", default=0, show_default=True, help="Of the search.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--out", required=True, help="Directory for trials, report.html and tuned.json; an interrupted search goes on there.")
@agent_options
def tune_command(task: str, agent: str, out: str, threads: int, task_extra: tuple[str, ...], **options: Any) -> None:
    """Search for settings of an agent on TASK with Optuna, by the reward on validation prompts.

    What is searched is what the agent's class declares; a setting that is given is fixed. The same command again goes on with an interrupted
    search, or with more trials.
    """
    set_threads(threads)
    from textgym.experiments.tune import TuneConfig, tune
    from textgym.experiments.tune_report import write_report

    names = ("trials", "tokens", "seeds", "max_kl", "points", "validation_prompts", "confirm_seeds", "seed")
    numbers = {name: options.pop(name) for name in names}
    config = TuneConfig(task, agent, settings=settings_from(**options), task_options=settings_from(task_extra), **numbers)
    with progress_bar("tuning") as bar:
        outcome = tune(config, out, bar)
    report = Path(out) / "report.html"
    write_report(outcome, report)
    click.echo(table(outcome))
    click.echo(f"{len(outcome.trials)} trials, {outcome.tokens:,} tokens")
    click.echo(verdict(outcome))
    if outcome.config.confirm_seeds:
        click.echo(f"found:    {Path(out) / 'tuned.json'}")
    click.echo(f"report:   {report.resolve()}")


def table(outcome: Any) -> str:
    """Return the trials as a text table, the best one marked."""
    lines = [["trial", "state", "reward", "KL", "tokens", *outcome.space, ""]]
    for trial in outcome.trials:
        note = "best" if trial == outcome.best else trial.note
        figures = ["" if figure is None else f"{figure:.3f}" for figure in (trial.reward, trial.kl)]
        values = [str(trial.settings.get(name, "")) for name in outcome.space]
        lines.append([str(trial.number), trial.state, *figures, f"{trial.tokens:,}", *values, note])
    return aligned(lines)


def verdict(outcome: Any) -> str:
    """Return in words how the best settings did with fresh seeds."""
    found = outcome.confirmed
    if found is None:
        return "the defaults were best" if outcome.config.confirm_seeds else "not compared with the defaults: no fresh seeds were asked for"
    gain = found["gain"]
    if outcome.better:
        words = "better than the defaults"
    elif gain["high"] < 0:
        words = "worse than the defaults, which stay"
    elif gain["low"] > 0 and len(found["seeds"]) > 1:
        words = f"better than the defaults, but with a KL above {outcome.max_kl:g}: these stay"
    else:
        words = "not told from the defaults, which stay"
    rewards = {name: ", ".join(f"{r:.2f}" for r in found[name]["reward"]) for name in ("defaults", "tuned")}
    return (
        f"with {len(found['seeds'])} fresh seeds {words}: reward {rewards['defaults']} -> {rewards['tuned']}, "
        f"gain {gain['value']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]"
    )
