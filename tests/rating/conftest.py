"""What the tests of rating share: files of texts, and `textgym rate` as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from textgym.rating.store import JudgementStore

TEXTS = [
    f" is number {i}, and it is {word}." for i, word in enumerate(["fine", "dull", "<b>odd</b>", 'very "long" & loud', "naïve 🎬"] * 10)
]


@pytest.fixture
def texts_file(tmp_path):
    """Fifty texts, the first of which attacks the page."""
    attack = "<script>window.attacked = true</script><img src=x onerror='window.attacked = true'>"
    rows = [{"prompt": "The movie", "text": text} for text in [attack, *TEXTS[1:50]]]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class RateProcess:
    """`textgym rate` with the given arguments; its address is known once it listens."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "textgym.cli.main", "rate", *map(str, arguments)]
        # whoever starts the tests in the background of a script hands a SIGINT down that is ignored until the server catches it
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heard)
        self.output = ""
        for line in self._process.stdout:
            self.output += line
            if line.startswith("open http://"):
                self.url = line.split()[1]
                return
        raise AssertionError(f"did not start: {self.output}")

    @property
    def port(self):
        return int(self.url.split(":")[2].partition("/")[0])

    def kill(self):
        """Kill it as kill -9 does."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    def interrupt(self):
        """Press Ctrl-C; return the exit code and what was printed after the start."""
        self._process.send_signal(signal.SIGINT)
        rest = self._process.communicate(timeout=120)[0]
        return self._process.returncode, rest

    def close(self):
        if self._process.poll() is None:
            self.kill()
        elif not self._process.stdout.closed:
            self._process.stdout.close()


@pytest.fixture
def rate():
    """Start `textgym rate`; whatever is still running in the end is killed."""
    started = []

    def start(*arguments):
        started.append(RateProcess(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def make_store(tmp_path):
    """Make a store of its own file; closed in the end."""
    made = []

    def make(collection, items, name="j.db"):
        made.append(JudgementStore.create(tmp_path / name, collection, items))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def open_store():
    """Open a store's file; closed in the end."""
    opened = []

    def open_(path):
        opened.append(JudgementStore(path))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()
