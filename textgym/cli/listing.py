"""`textgym list`: what is registered, and by whom."""

import click

from textgym.plugin_manager import KINDS, installed_plugins
from textgym.tasks import environment_id

TOPICS = ("rewards", "tasks", "agents", "models", "judgements", "plugins")


@click.command("list", epilog="Example: textgym list rewards")
@click.argument("topic", type=click.Choice(TOPICS), required=False)
def list_command(topic: str | None) -> None:
    """Show rewards, tasks, agents, models, human judgements and plugins, with the package and version each comes from."""
    plugins = installed_plugins()
    for title in [topic] if topic else TOPICS:
        if title == "plugins":
            rows = [(p.plugin, "", f"{p.distribution} {p.version}".strip()) for p in plugins.plugins.values()]
        else:
            kind = next(k for k in KINDS if f"{k}s" == title)
            found = plugins.registrations(kind).values()
            rows = [
                (
                    environment_id(r.name) if kind == "task" else r.name,
                    r.summary,
                    f"{r.provenance.distribution} {r.provenance.version}".strip(),
                )
                for r in found
            ]
        click.secho(title, bold=True)
        width = max((len(name) for name, _, _ in rows), default=0)
        for name, summary, origin in sorted(rows):
            click.echo(f"  {name:<{width}}  {summary}{'  ' if summary else ''}" + click.style(f"[{origin}]", dim=True))
    for problem in plugins.problems if topic in (None, "plugins") else []:
        click.secho(f"skipped: {problem}", fg="yellow")
