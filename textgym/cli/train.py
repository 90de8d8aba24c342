"""`textgym train`: one agent, one task, one run directory."""

from typing import Any

import click

from textgym.cli.options import BUDGET_HELP, agent_options, set_threads, settings_from
from textgym.cli.progress import progress_bar
from textgym.errors import InvalidArgumentError


@click.command("train", epilog="Example: textgym train ReviewContinuation --agent ppo --reward human-rating --tokens 20000 --out runs/x")
@click.argument("task", required=False)
@click.option("--agent", default="ppo", show_default=True, help="Registered agent.")
@click.option("--tokens", default=20_000, show_default=True, help="Tokens to generate in learning.")
@click.option("--budget", default="", metavar="KIND=N", help=BUDGET_HELP)
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--out", help="Run directory to make.")
@click.option("--resume", "resumed", metavar="DIR", help="Go on with the interrupted run in DIR.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--tuned", is_flag=True, help="Take the settings that were tuned for the task; those given win.")
@agent_options
def train_command(
    task: str | None,
    agent: str,
    tokens: int,
    budget: str,
    seed: int,
    out: str | None,
    resumed: str | None,
    threads: int,
    tuned: bool,
    task_extra: tuple[str, ...],
    **options: Any,
) -> None:
    """Train an agent on TASK, with metrics, checkpoints and a final evaluation on held-out prompts.

    An interrupted run goes on exactly where it was with --resume.
    """
    if (resumed is None) == (task is None or out is None):
        raise InvalidArgumentError("give TASK and --out DIR to start a run, or --resume DIR alone to go on with one")
    set_threads(threads)
    from textgym.agent import tuned_settings
    from textgym.experiments.train import TrainConfig, resume, train

    with progress_bar("training") as bar:
        if resumed is not None:
            result = resume(resumed, lambda done, total: bar(done, total, ""))
        else:
            settings = settings_from(**options)
            if tuned:
                found = tuned_settings(agent, str(task))
                settings = {**found, **settings}
                shown = ", ".join(f"{name}={value}" for name, value in settings.items())
                click.echo(f"settings: {shown}" if found else f"a search found nothing better than the defaults of {agent}: they stay")
            config = TrainConfig(str(task), agent, tokens, seed, settings, task_options=settings_from(task_extra), budget=budget)
            result = train(config, str(out), lambda done, total: bar(done, total, ""))
    first, last = result["curve"][0], result["curve"][-1]
    names = ["reward", *(n for n in ("accuracy", "f1", "gold") if n in last and last[n] == last[n])]
    click.echo("validation: " + ", ".join(f"{n} {first[n]:.3f} -> {last[n]:.3f}" for n in names))
    click.echo("held-out test prompts: " + ", ".join(f"{n} {result[n]:.3f}" for n in names) + f", KL {result['kl']:.3f} nats/token")
    click.echo("cost: " + ", ".join(f"{result[n]:,} {n.replace('_', ' ')}" for n in ("tokens_generated", "tokens_trained", "texts_scored")))
    click.echo(f"      {result['seconds']:.1f} s of learning, peak memory {result['peak_memory']:.0f} MiB")
    for prompt, continuation in result["texts"][:5]:
        click.echo("  " + click.style(prompt, dim=True) + continuation)
    click.echo(f"agent: {resumed or out}/agent")
