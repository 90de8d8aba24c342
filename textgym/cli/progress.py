"""The progress bar of long commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Bar = Callable[[int, int, str], None]


@contextmanager
def progress_bar(title: str, unit: str = "tokens") -> Iterator[Bar]:
    """Yield a function (done, total, note) that moves a bar with speed and remaining time; plain lines where there is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    progress = Progress(*columns, refresh_per_second=4)
    task = progress.add_task(title, total=None, note="")
    shown = -1

    def move(done: int, total: int, note: str) -> None:
        nonlocal shown
        progress.start()  # only now: a command that fails at once shows no bar
        progress.update(task, completed=min(done, total), total=total, note=note)
        tenth = done * 10 // max(1, total)
        if not progress.console.is_terminal and tenth > shown:
            shown = tenth
            progress.console.print(f"{title}: {done:,} of {total:,} {unit}  {note}")

    try:
        yield move
    finally:
        progress.stop()
