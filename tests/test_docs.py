"""Every Python block of README and docs runs; its long runs are shortened."""

import multiprocessing
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
PRELOADED = [
    "stable_baselines3",
    "transformers",
    "textgym.agent",
    "textgym.sb3",
    "textgym.learning.text_agent",
]  # seconds, once for all pages


def run_page(code, folder, errors):
    """Run the blocks of a page as a program of their own in `folder`; write what went wrong into `errors`."""
    os.chdir(folder)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    except BaseException:
        Path(errors).write_text(traceback.format_exc())
        sys.exit(1)


@pytest.fixture(scope="module")
def pages_server():
    """Forks a fresh process per page from one that has imported the heavy packages and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_run(page, tmp_path, pages_server):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    code = "\n".join(blocks).replace("20_000", "800")
    if not code:
        pytest.skip("no Python on this page")
    errors = tmp_path / "errors.txt"
    (folder := tmp_path / "page").mkdir()
    process = pages_server.Process(target=run_page, args=(code, str(folder), str(errors)))
    process.start()
    process.join()
    assert process.exitcode == 0, errors.read_text() if errors.is_file() else f"ended with {process.exitcode}"


@pytest.mark.parametrize("page", PAGES)
def test_links_point_at_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_pages_of_agents_state_the_defaults():
    check = subprocess.run([sys.executable, ROOT / "tools" / "agent_settings.py", "--check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
