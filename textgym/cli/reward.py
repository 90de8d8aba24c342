"""`textgym reward`: score texts, check a reward, try to game it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from textgym.cli.options import set_threads, settings_from
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError

REWARD_HELP = "REWARD is a name or a text such as 'human-rating - 0.5*repetition'."


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
            values = {name: float(scores[i]) for name, scores in terms.items()}
            line = {"prompt": episode.prompt, "continuation": episode.continuation, "score": float(total[i]), "terms": values}
            click.echo(json.dumps(line, ensure_ascii=False))
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
    from textgym.rewards.conformance import check_reward

    if task and file:
        raise InvalidArgumentError("give --task or --file, not both")
    episodes = _task_episodes(task) if task else _read_episodes(file) if file else None
    results = check_reward(reward, episodes, min_speed, **settings_from(extra))
    colors = {"passed": "green", "failed": "red", "skipped": "yellow"}
    for result in results:
        click.echo(f"{click.style(f'{result.status:8}', fg=colors[result.status])}{result.name:17}{result.detail}")
    failed = sum(result.status == "failed" for result in results)
    click.echo(f"{reward}: {failed} of {len(results)} checks failed" if failed else f"{reward}: sound ({len(results)} checks)")
    sys.exit(1 if failed else 0)


@reward_group.command("redteam", epilog="Example: textgym reward redteam human-rating --task ReviewContinuation --fail-above 95")
@click.argument("reward")
@click.option("--task", required=True, help="Whose reference texts are the human ones.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the reward.")
@click.option("--split", default="validation", show_default=True, help="Of the task's prompts.")
@click.option("--texts", default=256, show_default=True, help="Human texts, at most.")
@click.option("--search-steps", default=6, show_default=True, help="Tokens of the searched suffix; 0 for no search.")
@click.option("--seconds", default=60.0, show_default=True, help="After this time no new exploit is tried.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of texts and tokens.")
@click.option(
    "--fail-above", default=95.0, show_default=True, help="Exit code 1 if an exploit beats more than this percentage of human texts."
)
@click.option("--out", help="Directory for plot.png and report.json; runs/redteam/REWARD by default.")
def redteam_command(
    reward: str,
    task: str,
    extra: tuple[str, ...],
    split: str,
    texts: int,
    search_steps: int,
    seconds: float,
    seed: int,
    fail_above: float,
    out: str | None,
) -> None:
    """Try to game a reward: which nonsense beats which share of the texts that people wrote?

    REWARD is a name or a text such as 'human-rating - 0.5*repetition'.
    """
    set_threads(1)
    from textgym.files import write_text
    from textgym.rewards.redteam import plot, redteam
    from textgym.rewards.reward import make_reward

    model = make_reward(reward, **settings_from(extra))

    def progress(name: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[Ktrying: {name}", err=True, nl=False)

    report = redteam(model, task, split, texts, search_steps=search_steps, seconds=seconds, seed=seed, progress=progress)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    human = report.human
    click.echo(f"{len(human)} human texts of {report.task} ({split}): mean {human.mean():.3f}, {human.min():.3f} to {human.max():.3f}")
    click.echo(f"{'beats':>6}  {'score':>8}  {'exploit':<30}text")
    for exploit in report.exploits:
        color = "red" if exploit.percentile > fail_above else None
        line = f"{exploit.percentile:5.1f}%  {exploit.score:8.3f}  {exploit.name:<30}{_one_line(exploit.episode.text)}"
        click.echo(click.style(line, fg=color))
    folder = Path(out) if out else Path("runs/redteam") / re.sub(r"[^\w.-]+", "_", report.reward)[:60]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"name": e.name, "score": e.score, "percentile": e.percentile, "prompt": e.episode.prompt, "continuation": e.episode.continuation}
        for e in report.exploits
    ]
    described: dict[str, Any] = {"reward": report.reward, "task": report.task, "split": split, "human": human.tolist(), "exploits": rows}
    write_text(folder / "report.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    plot(report, folder / "plot.png")
    click.echo(f"plot: {folder / 'plot.png'}")
    if report.worst.percentile > fail_above:
        click.echo(f"{report.reward}: can be gamed: {report.worst.name!r} beats {report.worst.percentile:.1f} % of human texts")
        sys.exit(1)
    click.echo(f"{report.reward}: no exploit beats more than {fail_above:g} % of human texts")


def _read_episodes(file: str) -> list[Episode]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"cannot read {file}: {error}") from None
    episodes = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if not line.lstrip().startswith("{"):
            episodes.append(Episode("", line))
            continue
        try:
            row = json.loads(line)
            references = row.get("references", ())
            references = (references,) if isinstance(references, str) else tuple(references)
            episodes.append(Episode(row.get("prompt", ""), row["continuation"], references=references, metadata=row.get("metadata", {})))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidArgumentError(f"{file}, line {number}: {what}; expected a JSON object with prompt and continuation") from None
    if not episodes:
        raise InvalidArgumentError(f"{file} holds no texts")
    return episodes


def _task_episodes(name: str) -> list[Episode]:
    """Return each prompt of a task's validation split, continued by the reference of the next."""
    from textgym.tasks import make_task

    task = make_task(name)
    prompts = task.split("validation" if "validation" in task.prompts else next(iter(task.prompts)))[:64]
    episodes = []
    for i, prompt in enumerate(prompts):
        other = prompts[(i + 1) % len(prompts)]
        text = (other.references[0] if other.references else other.text).removeprefix(other.text)
        ids = tuple(range(3, 3 + len(text.split())))
        episodes.append(Episode(prompt.text, text, (1,), ids, prompt.references, "stop", prompt.metadata))
    return episodes


def _one_line(text: str) -> str:
    shown = repr(text)[1:-1]
    return shown if len(shown) <= 100 else shown[:97] + "..."
