"""Write the table of defaults into every page docs/agents/NAME.md; `--check` only says which pages are behind.

python tools/agent_defaults.py
"""

import sys
from pathlib import Path

import textgym
from textgym.agent import Agent, agent_settings
from textgym.plugin_manager import installed_plugins

PAGES = Path(textgym.__file__).parents[1] / "docs" / "agents"
HEADING = "## Defaults"


def table_of(name: str) -> str:
    """Return the section on the settings of the agent `name`, without those that every agent has."""
    common = agent_settings(Agent)
    own = {k: v for k, v in agent_settings(installed_plugins().find("agent", name).factory).items() if k not in common}
    rows = [f"| `{setting}` | {'—' if default is None else f'`{default}`'} |" for setting, default in own.items()]
    return "\n".join([HEADING, "", "| setting | default |", "|---|---|", *rows, ""])


def renewed(page: Path) -> str:
    """Return the page with its table as the code has it; the section is the page's last."""
    text = page.read_text()
    if HEADING not in text:
        raise SystemExit(f"{page.name} has no section {HEADING!r} at its end")
    return text[: text.index(HEADING)] + table_of(page.stem)


if __name__ == "__main__":
    behind = [page for page in sorted(PAGES.glob("*.md")) if renewed(page) != page.read_text()]
    if "--check" in sys.argv[1:]:
        sys.exit(f"run python tools/agent_defaults.py: {', '.join(p.name for p in behind)}" if behind else 0)
    for page in behind:
        page.write_text(renewed(page))
