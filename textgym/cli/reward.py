"""`textgym reward`: score texts, check a reward, try to game it."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.text import Text

from textgym.cli.console import console
from textgym.cli.options import set_threads, settings_from
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.files import write_text

if TYPE_CHECKING:
    from textgym.rewards.redteam import RedTeamReport

STATUS_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


@click.group("reward", epilog="Example: textgym reward check human-rating")
def reward_group() -> None:
    """Score texts with a reward, check that it is sound, and see whether it can be gamed."""


@reward_group.command("score", epilog='Example: textgym reward score human-rating --prompt "The movie" --continuation " was a delight."')
@click.argument("reward")
@click.argument("file", required=False)
@click.option("--prompt", default="", help="Prompt of the single text.")
@click.option("--continuation", help="Continuation of the single text.")
@click.option("--reference", "references", multiple=True, help="A reference text; may be given several times.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the reward.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def score_command(
    reward: str, file: str | None, prompt: str, continuation: str | None, references: tuple[str, ...], extra: tuple[str, ...], as_json: bool
) -> None:
    """Score one text, or those in FILE (- for standard input).

    FILE holds a JSON object a line with "prompt", "continuation", and perhaps "references"; a line that is not JSON is a continuation.
    REWARD is a name or a text such as 'human-rating - 0.5*repetition'.
    """
    if (file is None) == (continuation is None):
        raise InvalidArgumentError("give either --continuation TEXT or a FILE of texts (- for standard input)")
    from textgym.rewards.reward import make_reward

    model = make_reward(reward, **settings_from(extra))
    episodes = [Episode(prompt, str(continuation), references=references)] if file is None else _read_episodes(file)
    total, terms = model.score_terms(episodes)
    if as_json:
        for i, episode in enumerate(episodes):
            values = {name: _number(scores[i]) for name, scores in terms.items()}
            line = {"prompt": episode.prompt, "continuation": episode.continuation, "score": _number(total[i]), "terms": values}
            click.echo(json.dumps(line))  # ASCII: a lone surrogate, or a line break of Unicode's, arrives as it was
        return
    names = list(terms) if len(terms) > 1 else []
    click.echo("  ".join([f"{'score':>9}", *(f"{name:>{max(9, len(name))}}" for name in names), "text"]))
    for i, episode in enumerate(episodes):
        cells = [f"{total[i]:9.4f}", *(f"{terms[name][i]:{max(9, len(name))}.4f}" for name in names)]
        click.echo("  ".join([*cells, _one_line(episode.text)]))


@reward_group.command("check", epilog="Example: textgym reward check human-rating")
@click.argument("reward")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the reward.")
@click.option("--task", help="Check on this task's prompts and references instead of general sentences.")
@click.option("--file", help="Check on these texts, as for `reward score`.")
@click.option("--min-speed", type=float, help="Texts per second it must reach; by default what it declares, else 10.")
def check_command(reward: str, extra: tuple[str, ...], task: str | None, file: str | None, min_speed: float | None) -> None:
    """Check that a reward is sound: one line per check; exit code 1 if one fails.

    REWARD is a name or a text such as 'human-rating - 0.5*repetition'.
    """
    set_threads(1)
    from textgym.rewards.conformance import check_reward, task_episodes

    if task and file:
        raise InvalidArgumentError("give --task or --file, not both")
    episodes = task_episodes(task) if task else _read_episodes(file) if file else None
    with _working() as progress:
        results = check_reward(reward, episodes, min_speed, progress, **settings_from(extra))
    table = _table("check", "", "found")
    for result in results:
        style = STATUS_STYLES[result.status]
        table.add_row(Text(result.name), Text(result.status, style=style), Text(result.detail))
    console().print(table)
    counts = Counter(result.status for result in results)
    passed = f"{counts['passed']} of {len(results)} checks passed" + (f", {counts['skipped']} skipped" if counts["skipped"] else "")
    if counts["failed"]:
        click.secho(f"{reward}: not sound: {passed}, {counts['failed']} failed", fg="red")
        sys.exit(1)
    click.secho(f"{reward}: sound: {passed}", fg="green")


@reward_group.command("redteam", epilog="Example: textgym reward redteam human-rating --task ReviewContinuation --fail-above 95")
@click.argument("reward")
@click.option("--task", required=True, help="Whose reference texts are the human ones.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the reward.")
@click.option("--split", default="validation", show_default=True, help="Of the task's prompts.")
@click.option("--texts", default=256, show_default=True, help="Human texts, at most.")
@click.option("--prompts", default=8, show_default=True, help="Prompts that each exploit is tried on.")
@click.option("--search-steps", default=6, show_default=True, help="Tokens of the searched suffix; 0 for no search.")
@click.option(
    "--seconds", default=60.0, show_default=True, help="For all exploits; then the kind under way is cut short, and no other is begun."
)
@click.option("--seed", default=0, show_default=True, help="Of the choice of texts and tokens.")
@click.option(
    "--fail-above", default=95.0, show_default=True, help="Exit code 1 if an exploit beats more than this percentage of human texts."
)
@click.option("--plot", "plot_file", metavar="FILE.png", help="Draw human scores and exploits.")
@click.option("--json", "json_file", metavar="FILE.json", help="Write all scores and exploits.")
def redteam_command(
    reward: str,
    task: str,
    extra: tuple[str, ...],
    split: str,
    texts: int,
    prompts: int,
    search_steps: int,
    seconds: float,
    seed: int,
    fail_above: float,
    plot_file: str | None,
    json_file: str | None,
) -> None:
    """Try to game a reward: which nonsense beats which share of the texts that people wrote?

    REWARD is a name or a text such as 'human-rating - 0.5*repetition'. The human texts are the task's references, each scored against the
    other references of its prompt, if it needs any.
    """
    if not 0 <= fail_above <= 100:
        raise InvalidArgumentError(f"--fail-above must be a percentage, 0 to 100, got {fail_above:g}")
    if seed < 0:
        raise InvalidArgumentError(f"--seed must be at least 0, got {seed}")
    for option, file in (("--plot", plot_file), ("--json", json_file)):
        if file and not Path(file).parent.is_dir():
            raise InvalidArgumentError(f"{option} {file}: there is no folder {Path(file).parent}")
        if file and Path(file).is_dir():
            raise InvalidArgumentError(f"{option} {file}: this is a folder, not a file")
    set_threads(1)
    from textgym.rewards.redteam import redteam
    from textgym.rewards.reward import make_reward

    model = make_reward(reward, **settings_from(extra))
    with _working() as progress:
        report = redteam(model, task, split, texts, prompts, search_steps, seconds, seed, progress)
    human = report.human
    table = _table(
        "beats", "score", "exploit", "for example", title=f"{report.reward} on {report.task}, {len(human)} human texts of {split}"
    )
    for exploit in report.exploits:
        style = "red" if exploit.percentile > fail_above else ""
        cells = (f"{exploit.percentile:.1f} %", f"{exploit.score:.3f}", exploit.name, _one_line(exploit.episode.text))
        table.add_row(*(Text(cell) for cell in cells), style=style)
    console().print(table)
    quartiles = np.percentile(human, (0, 25, 50, 75, 100))
    click.echo("human texts score " + ", ".join(f"{q:.3f}" for q in quartiles) + " (least, quartiles, most)")
    if report.own_references:
        click.echo(
            "each human text is the only reference of its prompt, so it scores as well as can be: 50 % means as good as the reference"
        )
    if report.skipped:
        click.echo(f"not tried within {seconds:g} s: {', '.join(report.skipped)}")
    if json_file:
        write_text(Path(json_file), json.dumps(_described(report), indent=1, ensure_ascii=False) + "\n")
    if plot_file:
        from textgym.rewards.redteam_plot import plot

        plot(report, Path(plot_file), fail_above)
        click.echo(f"plot: {plot_file}")
    if report.worst.percentile > fail_above:
        share = f"beats {report.worst.percentile:.1f} % of human texts, more than {fail_above:g} %"
        click.secho(f"{report.reward}: can be gamed: {report.worst.name!r} {share}", fg="red")
        sys.exit(1)
    click.secho(f"{report.reward}: no exploit beats more than {fail_above:g} % of human texts", fg="green")


def _described(report: "RedTeamReport") -> dict[str, Any]:
    """Return a report as plain data."""
    exploits = [
        {
            "name": e.name,
            "score": e.score,
            "percentile": e.percentile,
            "prompt": e.episode.prompt,
            "continuation": e.episode.continuation,
            "n_variants": e.n_variants,
        }
        for e in report.exploits
    ]
    whose = {"reward": report.reward, "task": report.task, "split": report.split}
    return {**whose, "human": report.human.tolist(), "exploits": exploits, "skipped": report.skipped}


@contextmanager
def _working() -> Iterator[Callable[[str], None]]:
    """Yield a function that says what is being done, in a line that goes away; silent where there is no terminal."""
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda name: status.update(f"trying: {name}")


def _table(*columns: str, title: str | None = None) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in ("beats", "score") else "left", no_wrap=column not in ("found", "for example")
        )
    return table


def _read_episodes(file: str) -> list[Episode]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"cannot read {file}: {error}") from None
    episodes = []
    for number, line in enumerate(text.split("\n"), 1):  # not `splitlines`: a JSON text may hold U+2028 and the like
        if not line.strip():
            continue
        if not line.lstrip().startswith("{"):
            episodes.append(Episode("", line.rstrip("\r")))
            continue
        try:
            episodes.append(_episode(json.loads(line)))
        except ValueError as error:
            raise InvalidArgumentError(f"{file}, line {number}: {error}; expected a JSON object with prompt and continuation") from None
    if not episodes:
        raise InvalidArgumentError(f"{file} holds no texts")
    return episodes


def _number(score: Any) -> float | None:
    """Return a score as JSON knows it: null for a text that the reward gave up."""
    return float(score) if np.isfinite(score) else None


def _episode(row: dict[str, Any]) -> Episode:
    """Return a row as an episode; raises `ValueError` that names what is missing or of the wrong type."""
    if "continuation" not in row:
        raise ValueError("no 'continuation'")
    prompt, continuation, references, metadata = (
        row.get(n, d) for n, d in (("prompt", ""), ("continuation", ""), ("references", ()), ("metadata", {}))
    )
    references = [references] if isinstance(references, str) else references
    for name, value in (("prompt", prompt), ("continuation", continuation)):
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, got {value!r:.80}")
    if not isinstance(references, (list, tuple)) or not all(isinstance(reference, str) for reference in references):
        raise ValueError(f"references must be a text or a list of texts, got {references!r:.80}")
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata must be an object, got {metadata!r:.80}")
    return Episode(prompt, continuation, references=tuple(references), metadata=metadata)


def _one_line(text: str) -> str:
    shown = repr(text)[1:-1]
    return shown if len(shown) <= 100 else shown[:97] + "..."
