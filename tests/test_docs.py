"""Every Python block of README and docs runs; its long runs are shortened."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import run_function

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


def run_page(code, folder):
    """Run the blocks of a page as a program of their own in `folder`."""
    os.chdir(folder)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_run(page, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    code = "\n".join(blocks).replace("20_000", "800")
    if not code:
        pytest.skip("no Python on this page")
    code, said = run_function(run_page, code, tmp_path)
    assert code == 0, said


@pytest.mark.parametrize("page", PAGES)
def test_links_point_at_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_pages_of_agents_state_the_defaults():
    check = subprocess.run([sys.executable, ROOT / "tools" / "agent_settings.py", "--check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    pages = [page.read_text() for page in (ROOT / "docs" / "agents").glob("*.md")]
    cut = [line for page in pages for line in page.splitlines() if line.startswith("| `") and line.count("(") != line.count(")")]
    assert not cut, "sentences that end inside of brackets"
