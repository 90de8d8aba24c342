"""`textgym list`: what is registered, and by whom."""

import click

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.plugin_manager import KINDS, Family, Provenance, installed_plugins
from textgym.tasks import environment_id

TOPICS = ("rewards", "tasks", "agents", "models", "judgements", "tuned-settings", "plugins")
Row = tuple[str, str, str]
"""Name, summary, origin."""


@click.command("list", epilog="Example: textgym list tasks reasoning-gym")
@click.argument("topic", type=click.Choice(TOPICS), required=False)
@click.argument("family", required=False)
def list_command(topic: str | None, family: str | None) -> None:
    """Show rewards, tasks, agents, models, human judgements, tuned settings and plugins, with the package and version each comes from.

    A family of names is one line; `textgym list tasks FAMILY` shows its members.
    """
    plugins = installed_plugins()
    if family is not None:
        _list_members(str(topic), family)
        return
    for title in [topic] if topic else TOPICS:
        if title == "plugins":
            rows = [(p.plugin, "", _origin(p)) for p in plugins.plugins.values()]
        else:
            kind = _kind(title)
            rows = [
                (environment_id(r.name) if kind == "task" else r.name, r.summary, _origin(r.provenance))
                for r in plugins.registrations(kind).values()
            ]
            rows += [
                (f"{name}:...", _size(title, name, f), _origin(provenance)) for name, (f, provenance) in plugins.families(kind).items()
            ]
        click.secho(title, bold=True)
        _show(rows)
    for problem in plugins.problems if topic in (None, "plugins") else []:
        click.secho(f"skipped: {problem}", fg="yellow")


def _list_members(topic: str, name: str) -> None:
    families = {} if topic == "plugins" else installed_plugins().families(_kind(topic))
    if name not in families:
        raise InvalidArgumentError(f"{name!r} is no family of {topic}; families: {', '.join(families) or 'none'}")
    family, provenance = families[name]
    click.secho(f"{topic} of the family {name}: {family.summary}", bold=True)
    _show([(f"{name}:{member}", "", _origin(provenance)) for member in family.members()])


def _size(topic: str, name: str, family: Family) -> str:
    try:
        return f"{family.summary} ({len(family.members())}: textgym list {topic} {name})"
    except MissingExtraError as error:
        return f"{family.summary} ({error})"


def _show(rows: list[Row]) -> None:
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, summary, origin in sorted(rows):
        click.echo(f"  {name:<{width}}  {summary}{'  ' if summary else ''}" + click.style(f"[{origin}]", dim=True))


def _kind(topic: str) -> str:
    return next(kind for kind in KINDS if f"{kind}s".replace("_", "-") == topic)


def _origin(provenance: Provenance) -> str:
    return f"{provenance.distribution} {provenance.version}".strip()
