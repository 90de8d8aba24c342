"""`textgym overoptimize`: how far a learnt reward can be pushed before the true one falls."""

from pathlib import Path
from typing import Any

import click

from textgym.cli.console import console
from textgym.cli.options import set_threads
from textgym.cli.progress import progress_bar


@click.command("overoptimize", epilog="Example: textgym overoptimize --sizes 100,300 --seeds 3 --out runs/over")
@click.option("--task", default="ReviewContinuation-v0", show_default=True, help="Whose prompts are continued.")
@click.option("--judgements", default="human-ratings", show_default=True, help="Ratings with individual raters: a name or a file.")
@click.option("--gold-scorer", default="compact", show_default=True, help="Scorer of the gold model.")
@click.option("--gold-rounds", default=2, show_default=True, help="Rounds in which the gold model learns what nonsense is; 0 for none.")
@click.option("--proxy-scorer", default="lm-linear", show_default=True, help="Scorer of the proxies.")
@click.option("--sizes", default="300", show_default=True, help="Training texts of the proxies.")
@click.option("--seeds", default=8, show_default=True, help="Proxies per size.")
@click.option("--first-seed", default=0, show_default=True, help="The seeds are this one and those that follow.")
@click.option("--members", default=4, show_default=True, help="Members of an ensemble.")
@click.option("--prompts", default=8, show_default=True, help="Best of n: prompts of each seed.")
@click.option("--samples", default=512, show_default=True, help="Samples of each prompt.")
@click.option("--agent", default="reinforce", show_default=True, help="Agent of the RL part.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="Of the agent; higher than in training that means well.")
@click.option("--tokens", default=24_000, show_default=True, help="Token budget of each RL run.")
@click.option("--max-kl", default=120.0, show_default=True, help="Nats per text at which an RL run ends before its budget does.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of each process.")
@click.option("--processes", default=2, show_default=True, help="Parts computed at a time, each on a core.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run; an interrupted one goes on there.")
def overoptimize_command(sizes: str, threads: int, processes: int, out: Path, **options: Any) -> None:
    """Fit a gold model and small proxies, optimise against the proxies, and plot what the gold model says of the result."""
    from rich.table import Table

    from textgym.errors import InvalidArgumentError
    from textgym.reward_modeling.overoptimization.config import OveroptimizationConfig
    from textgym.reward_modeling.overoptimization.report import FIGURE_TITLES, rows, verdict, write_overoptimization
    from textgym.reward_modeling.overoptimization.run import overoptimize

    set_threads(threads)
    try:
        numbers = tuple(int(text) for text in sizes.split(","))
    except ValueError:
        raise InvalidArgumentError(f"--sizes wants whole numbers with commas between, got {sizes!r}") from None
    with progress_bar("over-optimising", "steps") as bar:
        found = overoptimize(OveroptimizationConfig(sizes=numbers, **options), out, bar, processes)
    write_overoptimization(found, out / "report.html")
    for title, curves in (("best of n", found.best_of_n), (found.config.agent, found.rl)):
        grid = Table(*FIGURE_TITLES, title=title)
        for row in rows(found, curves):
            grid.add_row(*row)
        console().print(grid)
        click.echo(verdict(found, curves))
    click.echo(f"report: {(out / 'report.html').resolve()}")
