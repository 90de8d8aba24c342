"""Worker processes: they end with the process that started them, even if that was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.waiting import within
from textgym.processes import worker_pool

SCRIPT = """
import os, time
from pathlib import Path
from tests.test_processes import write_and_wait
from textgym.processes import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        jobs = [pool.submit(write_and_wait, {folder!r}, i) for i in range(3)]
        [job.result() for job in jobs]
"""


def write_and_wait(folder: str, number: int) -> int:
    """Leave this process's id in a file, and work for long."""
    Path(folder, f"{number}").write_text(str(os.getpid()))
    time.sleep(600)
    return number


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def is_running(pid: int) -> bool:
    """Say whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_killed_parent_and_begin_nothing_more(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    try:
        assert within(300, (tmp_path / "0").exists)
        assert within(60, lambda: (tmp_path / "0").read_text() != "")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    worker = int((tmp_path / "0").read_text())
    assert within(60, lambda: not is_running(worker))
    assert not (tmp_path / "1").exists()


def test_a_pool_works_and_ends():
    with worker_pool(2) as pool:
        assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]
