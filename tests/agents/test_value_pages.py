"""Pages of the value-based agents: the defaults that they state are the agents'."""

import re
from pathlib import Path

import pytest

from textgym.agent import agent_settings
from textgym.plugin_manager import installed_plugins

PAGES = Path(__file__).parents[2] / "docs" / "agents"
ROW = re.compile(r"^\| `(\w+)` \| `([^`]*)` \|", re.MULTILINE)


@pytest.mark.parametrize("name", ["dqn", "soft-q", "sac"])
def test_the_table_states_the_defaults(name):
    known = agent_settings(installed_plugins().find("agent", name).factory)
    rows = ROW.findall((PAGES / f"{name}.md").read_text())
    assert len(rows) >= 8
    assert dict(rows) == {setting: repr(known[setting]) for setting, _ in rows}
