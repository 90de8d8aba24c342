"""`textgym new-reward`: a working reward plugin package to start from."""

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from textgym.errors import InvalidArgumentError
from textgym.files import replaced_folder
from textgym.plugin_manager import installed_plugins

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@click.command(
    "new-reward", epilog="Example: textgym new-reward politeness && pip install -e 'textgym-politeness[test]' && textgym list rewards"
)
@click.argument("name")
@click.option("--out", help="Folder to make; textgym-NAME by default.")
def new_reward_command(name: str, out: str | None) -> None:
    """Make a reward plugin package called NAME: code, tests with the conformance checks, README."""
    folder = Path(out or f"textgym-{name}")
    write_package(name, folder)
    click.echo(f"made {folder}; the reward is in {folder / module_name(name)}.py")
    click.echo(f"next: pip install -e '{folder}[test]' && pytest {folder} && textgym list rewards")


def module_name(name: str) -> str:
    """Return the name of the package's one module."""
    return f"textgym_{name.replace('-', '_')}"


def write_package(name: str, folder: Path) -> None:
    """Write the package; raises if the name cannot be one, is taken, or the folder exists."""
    if not NAME.fullmatch(name):
        raise InvalidArgumentError(f"the name must be lower-case words joined by hyphens, like 'politeness' or 'no-swearing', got {name!r}")
    taken = installed_plugins().registrations("reward")
    if name in taken:
        raise InvalidArgumentError(f"the reward {name!r} exists already, from {taken[name].provenance}: choose another name")
    if folder.exists() or folder.is_symlink():
        raise InvalidArgumentError(f"{folder} exists already: remove it or pass --out")
    module = module_name(name)
    if find_spec(module) is not None:
        raise InvalidArgumentError(f"the module {module} of the reward {name!r} would hide one that is installed: choose another name")
    values = {"name": name, "module": module, "class_name": "".join(part.capitalize() for part in name.split("-")) + "Reward"}
    targets = {
        "pyproject.toml.txt": "pyproject.toml",
        "module.py.txt": f"{module}.py",
        "test_module.py.txt": f"tests/test_{module}.py",
        "README.md.txt": "README.md",
    }
    templates = files("textgym.cli") / "templates" / "new_reward"
    with replaced_folder(folder) as aside:
        (aside / "tests").mkdir()
        for template, target in targets.items():
            (aside / target).write_text(Template((templates / template).read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
