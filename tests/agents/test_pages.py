"""The agents' pages: the defaults they tell are those of the code."""

import json
import re
from pathlib import Path

import pytest

from textgym.agent import agent_settings
from textgym.plugin_manager import installed_plugins

PAGES = sorted((Path(__file__).parents[2] / "docs" / "agents").glob("*.md"))
ROW = re.compile(r"^\| (`[^|]*`) \| (`[^|]*`) \| ", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_defaults_are_those_of_the_code(page):
    table = page.read_text().partition("| setting | default |")[2]
    known = agent_settings(installed_plugins().find("agent", page.stem).factory)
    told = {}
    for names, values in ROW.findall(table):
        told |= dict(zip(re.findall(r"`(.*?)`", names), re.findall(r"`(.*?)`", values), strict=True))
    assert told, "the page has no table with | setting | default |"
    for name, value in told.items():
        assert known[name] == json.loads(value), name
