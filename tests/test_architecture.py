"""The house: imports go one way, and the core knows no plugin and no agent by name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [
    "errors",
    "annotation",
    "classification",
    "device",
    "episode",
    "hookspecs",
    "files",
    "html_page",
    "memory",
    "processes",
    "plugin_manager",
    "search_space",
    "tuned_settings",
    "lm",
    "tokenization",
    "tasks",
    "rewards",
    "text_source",
    "interop",
    "mdp",
    "envs",
    "policies",
    "agent",
    "experiments",
    "reward_modeling",
    "learning",
    "imitation",
    "rating",
    "pytest_plugin",
    "cli",
]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "textgym").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_go_down(path):
    found = set(imports(path))
    assert not [m for m in found if m.startswith(("textgym_plugins", "textgym_agents"))]
    own = path.relative_to(ROOT / "textgym").with_suffix("").parts[0]
    if own not in LAYERS:
        assert own in ("__init__", "sb3"), f"{own} has no layer: add it to the list"
        return
    for module in found:
        parts = module.split(".")
        if parts[0] == "textgym" and len(parts) > 1 and parts[1] in LAYERS:
            assert LAYERS.index(parts[1]) <= LAYERS.index(own), f"{own} imports {module}, which lies above it"


@pytest.mark.parametrize("folder", ["textgym", "plugins", "agents"])
def test_every_file_says_what_it_is(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert path.name == "__init__.py" or ast.get_docstring(ast.parse(path.read_text())), path
