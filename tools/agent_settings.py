"""Write the table of settings into every page docs/agents/NAME.md; `--check` only says which pages are behind.

    python tools/agent_settings.py

Defaults are those of the constructors, meanings the first sentences of their docstrings.
"""

import inspect
import re
import sys
from pathlib import Path

import textgym
from textgym.agent import Agent, agent_settings
from textgym.plugin_manager import installed_plugins

PAGES = Path(textgym.__file__).parents[1] / "docs" / "agents"
HEADING = "## Settings"
SENTENCE_END = r"(?<=[a-z0-9)`])(?<!et al)\.(?: |$)"
ENTRY = re.compile(r"^    (?P<names>\w+(?:,\s+\w+)*): (?P<text>.+(?:\n {8}.+)*)", re.MULTILINE)


def meanings(factory):
    """Return setting → what it means, from the docstrings of the class and its base classes."""
    found = {}
    for owner in factory.__mro__:
        arguments = inspect.cleandoc(vars(owner).get("__doc__") or "").partition("Args:\n")[2].partition("\n\n")[0]
        for entry in ENTRY.finditer(arguments):
            text = re.sub(r"\s+", " ", entry["text"])
            names = re.split(r",\s+", entry["names"])
            end = f"{SENTENCE_END}|;" if len(names) > 1 else SENTENCE_END
            for name in names:
                found.setdefault(name, re.split(end, text)[0].rstrip("."))
    return found


def table_of(name):
    """Return the section on the settings of the agent `name`, without those that every agent has."""
    factory = installed_plugins().find("agent", name).factory
    common, meaning = agent_settings(Agent), meanings(factory)
    own = {setting: default for setting, default in agent_settings(factory).items() if setting not in common}
    rows = [f"| `{setting}` | `{default!r}` | {meaning[setting].replace('|', '∣')} |" for setting, default in own.items()]
    return "\n".join([HEADING, "", "Beside those of every agent:", "", "| setting | default | meaning |", "|---|---|---|", *rows, ""])


def renewed(page):
    """Return the page with its table as the code has it; the section is the page's last."""
    text = page.read_text()
    if HEADING not in text:
        raise SystemExit(f"{page.name} has no section {HEADING!r} at its end")
    return text[: text.index(HEADING)] + table_of(page.stem)


if __name__ == "__main__":
    behind = [page for page in sorted(PAGES.glob("*.md")) if renewed(page) != page.read_text()]
    if "--check" in sys.argv[1:]:
        sys.exit(f"run python tools/agent_settings.py: {', '.join(p.name for p in behind)} have other settings" if behind else 0)
    for page in behind:
        page.write_text(renewed(page))
