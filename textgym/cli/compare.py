"""`textgym compare`: agents × seeds at equal budgets, a table and a report."""

import sys
from pathlib import Path
from typing import Any

import click

from textgym.cli.options import BUDGET_HELP, agent_options, settings_from
from textgym.cli.progress import progress_bar


@click.command(
    "compare", epilog="Example: textgym compare ReviewContinuation --agents ppo,a2c,reinforce --seeds 3 --tokens 20000 --out runs/y"
)
@click.argument("task")
@click.option(
    "--agents", default="ppo,a2c,reinforce", show_default=True, help='Registered agents, separated by commas; "base" is always added.'
)
@click.option("--seeds", default=3, show_default=True, help="Runs per agent.")
@click.option("--tokens", default=20_000, show_default=True, help="Tokens each run generates in learning.")
@click.option("--budget", default="", metavar="KIND=N", help=BUDGET_HELP)
@click.option("--test-prompts", default=128, show_default=True, help="Held-out prompts of the final evaluation.")
@click.option("--tuned", is_flag=True, help="Take the settings that were tuned for the task, where there are any; those given win.")
@click.option("--workers", type=int, help="Processes side by side; the number of cores by default.")
@click.option("--out", required=True, help="Directory for runs, results.csv and report.html; an interrupted comparison goes on there.")
@agent_options
def compare_command(
    task: str,
    agents: str,
    seeds: int,
    tokens: int,
    budget: str,
    test_prompts: int,
    tuned: bool,
    workers: int | None,
    out: str,
    task_extra: tuple[str, ...],
    **options: Any,
) -> None:
    """Train several agents on TASK at equal budgets and say who is better, and who cannot be told apart.

    A setting goes to every agent that has it; one of a single agent is given as --set AGENT.NAME=VALUE. An agent one of whose runs fails is
    listed as failed, and the others are compared; the exit code is then 1.
    """
    from textgym.experiments.compare import MAX_PAIRS, CompareConfig, compare, tuned_settings_of_all, with_tuned
    from textgym.experiments.doubts import doubts
    from textgym.experiments.report import write_report

    names = tuple(a.strip() for a in agents.split(",") if a.strip())
    task_options, settings = settings_from(task_extra), settings_from(**options)
    if tuned:
        found = tuned_settings_of_all(task, names)
        settings = with_tuned(settings, found)
        untuned = [name for name in names if name not in found]
        click.echo(f"tuned: {', '.join(found) or 'none'}" + (f"; at their defaults: {', '.join(untuned)}" if untuned else ""), err=True)
    config = CompareConfig(task, names, seeds, tokens, settings, test_prompts=test_prompts, task_options=task_options, budget=budget)
    with progress_bar("comparing", config.spending.unit) as bar:
        comparison = compare(config, out, workers, bar)
    report = Path(out) / "report.html"
    write_report(comparison, report)
    click.echo(table(comparison))
    click.echo(costs(comparison))
    if len(comparison.pairs) <= MAX_PAIRS:
        for pair in comparison.pairs:
            click.echo(f"{pair.first} - {pair.second}: {pair.difference}  {pair.verdict}")
    else:
        for standing in comparison.standings:
            click.echo(str(standing))
    for agent, reason in doubts(comparison.rows).items():
        click.secho(f"{agent}: texts unlike the language model's ({reason}): reward and gold may be gamed alike, read them", fg="yellow")
    for failure in comparison.failures:
        click.secho(f"run {failure.run} failed: {failure.error}", fg="yellow")
    click.echo(f"results: {out}/results.csv")
    click.echo(f"report:  {report.resolve()}")
    if comparison.failures:
        sys.exit(1)


def table(comparison: Any) -> str:
    """Return the comparison as a text table."""
    labels = all(row.accuracy is not None for row in comparison.rows)
    titles = ["agent", "reward (IQM, 95 %)", "gain over base", "gold gain"]
    titles += ["accuracy (mean, 95 %)", "precision", "recall", "F1", "KL"] if labels else ["KL", "ppl", "distinct-2", "tokens"]
    lines = [titles]
    for row in comparison.rows:
        f = row.figures
        gains = ["", ""] if row.agent == "base" else [str(row.gain), str(row.gold_gain) if row.gold_gain else ""]
        kl = f"{f['kl']:.2f}".replace("-0.00", "0.00")
        if labels:
            cells = [str(row.accuracy), *(f"{f[name]:.2f}" for name in ("precision", "recall", "f1")), kl]
        else:
            cells = [kl, f"{f['perplexity']:.0f}", f"{f['distinct_2']:.2f}", f"{f['length']:.1f}"]
        lines.append([row.agent, str(row.reward), *gains, *cells])
    for agent, seeds in comparison.failed_seeds.items():
        lines.append([agent, f"failed (seed {', '.join(map(str, seeds))})", *[""] * (len(titles) - 2)])
    return aligned(lines)


def costs(comparison: Any) -> str:
    """Return what learning cost, on average over the seeds, as a text table."""
    lines = [["cost of learning", "tokens generated", "trained on", "texts scored", "per text written", "seconds", "peak MiB", "tokens/s"]]
    for row in comparison.rows:
        f = row.figures
        speed = f"{f['tokens_per_second']:.0f}" if "tokens_per_second" in f and row.agent != "base" else ""
        counts = [f"{f[name]:,.0f}" for name in ("tokens_generated", "tokens_trained", "texts_scored")]
        counts.append(f"{f.get('scored_per_text', 0):.0f}")
        lines.append([row.agent, *counts, f"{f['seconds']:.1f}", f"{f['peak_memory']:.0f}", speed])
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """Return cells as a text table whose columns stand below each other."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
