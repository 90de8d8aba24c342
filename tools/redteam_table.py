"""Write the table "Bundled rewards" of docs/is-my-reward-sound.md: every reward, checked and red-teamed; with an example where it needs options.

    python tools/redteam_table.py            # all of them
    python tools/redteam_table.py vader      # only these; the other rows stay as they are

A reward that is the default of a task with human texts is attacked on that task, any other on ReviewContinuation.
"""

import inspect
import sys
import time
from pathlib import Path

import torch

from textgym.errors import TextgymError, one_line
from textgym.files import write_text
from textgym.plugin_manager import installed_plugins
from textgym.rewards.conformance import check_reward, task_episodes
from textgym.rewards.redteam import redteam
from textgym.rewards.reward import make_reward
from textgym.tasks import make_task

PAGE = Path(__file__).resolve().parents[1] / "docs" / "is-my-reward-sound.md"
BEGIN, END = "<!-- bundled rewards: begin -->", "<!-- bundled rewards: end -->"
HEAD = "| reward | checks passed | strongest exploit | its text | beats, of human texts |\n|---|---|---|---|---|\n"
USUAL_TASK = "ReviewContinuation-v0"
LONGEST = 300  # characters of an exploit's text
EXAMPLES = {  # of rewards that are not made from their name alone
    "clip": "clip(human-rating, -2, 2)",
    "ensemble": "ensemble(human-rating, vader, how=min)",
    "json-schema": "json-schema(schema='{}')",
    "keyword": "keyword(words=great)",
    "non-empty": "non-empty(human-rating, -4)",
    "normalize": "normalize(human-rating)",
    "regex": "regex(pattern='[.!?]$')",
    "scale": "scale(vader, 0.5)",
    "served": "served(vader)",
    "shaping": "shaping(vader)",
}
TASKS = {"reasoning-gym": "reasoning-gym:chain_sum"}  # of rewards that only score their own task
SECONDS = 120.0  # for one reward's red team


def main(only: list[str]) -> None:
    """Compute the rows and put them between the markers."""
    torch.set_num_threads(1)
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    old, after = rest.split(END)
    rows = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")} if only else {}
    tasks = tasks_by_reward()
    for name in (EXAMPLES.get(name, name) for name in only or sorted(installed_plugins().registrations("reward"))):
        if name in installed_plugins().registrations("reward") and (reason := why_not(name)) is not None:
            print(f"{name}: left out: {reason}")
            continue
        start = time.monotonic()
        rows[name] = row(name, TASKS.get(name, tasks.get(name, USUAL_TASK)))
        print(f"{rows[name]}  ({time.monotonic() - start:.0f} s)", flush=True)
    write_text(PAGE, f"{before}{BEGIN}\n{HEAD}" + "".join(f"{rows[name]}\n" for name in sorted(rows)) + f"{END}{after}")


def why_not(name: str) -> str | None:
    """Return why a reward cannot be made from its name alone, or None if it can."""
    factory = installed_plugins().find("reward", name).factory
    needed = [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.kind is p.VAR_POSITIONAL or (p.default is p.empty and p.kind is not p.VAR_KEYWORD)
    ]
    if needed:
        return f"needs {', '.join(needed)}"
    try:
        make_reward(name)
    except Exception as error:
        return str(error) if isinstance(error, TextgymError) else one_line(error)
    return None


def tasks_by_reward() -> dict[str, str]:
    """Return, for a reward that is some task's own, that task - if people's texts are known for it."""
    found: dict[str, str] = {}
    for name in installed_plugins().registrations("task"):
        try:
            task = make_task(name)
            if isinstance(task.reward, str) and any(p.references for p in task.split("validation")):
                found[task.reward] = name
        except Exception as error:  # a task that needs options, data or another split
            print(f"task {name}: left out: {one_line(error)}")
    return found


def row(name: str, task: str) -> str:
    """Check and attack one reward; return its line of the table."""
    results = check_reward(name, task_episodes(task) if name in TASKS else None)
    counted = [r for r in results if r.status != "skipped"]
    failed = [r.name for r in counted if r.status == "failed"]
    checks = f"{len(counted) - len(failed)}/{len(counted)}" + (f"; not {', '.join(failed)}" if failed else "")
    try:
        report = redteam(name, task, seconds=SECONDS)
    except TextgymError as error:
        return f"| `{name}` | {checks} | none could be tried: {cell(str(error))} | | |"
    worst = report.worst
    share = f"{worst.percentile:.0f} %" + (" (each its own reference)" if report.own_references else "")
    where = "" if task == USUAL_TASK else f" ({task})"
    return f"| `{name}`{where} | {checks} | {worst.name} | {cell(worst.episode.text)} | {share} |"


def cell(text: str) -> str:
    """Return a text as it can stand in a table: one line, not too long, no mark-up."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "..."
    for mark in "\\|`*_<>[]":
        shown = shown.replace(mark, f"\\{mark}")
    return shown


if __name__ == "__main__":
    main(sys.argv[1:])
