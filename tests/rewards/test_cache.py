"""The score cache: nothing committed is lost to a kill, nothing is scored twice, and different things have different keys."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textgym
from textgym.rewards import Cached, Served
from textgym.rewards.cache import ScoreCache

N = 10_000
WRITER = """
import os, sys, time
import textgym
from textgym.rewards.cache import Cached

path, log, order, pause = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
calls = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def value(episodes):
    os.write(calls, b"." * len(episodes))
    time.sleep(pause)
    return [len(e.prompt) + int(e.prompt) / 7 for e in episodes]

numbers = list(range(int(sys.argv[5])))
numbers = numbers[::-1] if order == "down" else numbers
reward = Cached(value, path, identity="value 1")
for start in range(0, len(numbers), 100):
    reward.score([textgym.Episode(str(i)) for i in numbers[start : start + 100]])
    print(start + 100, flush=True)
"""


def writer(path: Path, log: Path, order: str = "up", pause: float = 0.0, n: int = N) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", WRITER, str(path), str(log), order, str(pause), str(n)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def stored(path: Path) -> list[float]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return sorted(score for (score,) in connection.execute("SELECT score FROM scores"))
    finally:
        connection.close()


def expected(n: int) -> list[float]:
    return sorted(len(str(i)) + i / 7 for i in range(n))


def test_kills_in_the_middle_lose_and_corrupt_nothing(tmp_path: Path) -> None:
    path, log = tmp_path / "scores.sqlite", tmp_path / "calls"
    for goal in (2000, 6000):
        process = writer(path, log, pause=0.02)
        assert process.stdout is not None
        done = 0
        while done < goal:
            done = int(process.stdout.readline())
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        found = stored(path)
        assert done <= len(found) < N
        assert set(found) <= set(expected(N))
        before = log.stat().st_size
    with writer(path, log) as process:
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait() == 0
    assert log.stat().st_size - before == N - len(found)  # only what was missing
    assert stored(path) == expected(N)


def test_several_processes_share_one_file(tmp_path: Path) -> None:
    path, log = tmp_path / "scores.sqlite", tmp_path / "calls"
    processes = [writer(path, log, order, n=2000) for order in ("up", "down", "up")]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert stored(path) == expected(2000)


def test_a_fork_opens_the_file_for_itself(tmp_path: Path) -> None:
    script = f"""
import os
from textgym.rewards.cache import ScoreCache
cache = ScoreCache({str(tmp_path / "scores.sqlite")!r})
cache.put({{"parent": 1.0}})
child = os.fork()
if child == 0:
    cache.put({{"child": cache.get(["parent"])["parent"] + 1}})
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert cache.get(["parent", "child", "nobody"]) == {{"parent": 1.0, "child": 2.0}}
"""
    subprocess.run([sys.executable, "-c", script], check=True)


class Counting:
    """Characters of the text; remembers what it was asked."""

    version = "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        self.asked += [e.text for e in episodes]
        return [float(len(e.text)) for e in episodes]


def test_an_episode_is_scored_once(tmp_path: Path) -> None:
    model, path = Counting(), tmp_path / "folder" / "scores.sqlite"
    a, b = textgym.Episode("a"), textgym.Episode("b", " bb")
    cached = Cached(model, path, identity="counting 1", chunk=1)
    assert cached.score([a, b, a, a]).tolist() == [1.0, 4.0, 1.0, 1.0]
    assert cached.score([b, a]).tolist() == [4.0, 1.0]
    assert model.asked == ["a", "b bb"]
    assert cached.n_scored == 2
    assert cached.score([]).tolist() == []
    assert Cached(model, path, identity="counting 1").score([a]).tolist() == [1.0]
    assert len(model.asked) == 2
    assert len(ScoreCache(path)) == 2


def test_what_a_score_depends_on_is_in_the_key(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    episode = textgym.Episode("p", " c", (1,), (2,), ("r",), "stop", {"id": 1})
    episodes = [
        episode,
        replace(episode, prompt="P"),
        replace(episode, continuation=" C"),
        replace(episode, prompt="p ", continuation="c"),
        replace(episode, references=("R",)),
        replace(episode, references=("r", "r")),
        replace(episode, finish_reason="length"),
        replace(episode, metadata={"id": 2}),
    ]
    keys = {Cached("vader", path)._key(e) for e in episodes}
    assert len(keys) == len(episodes)
    same = replace(episode, prompt_ids=(9,), continuation_ids=(8, 8))
    assert Cached("vader", path)._key(same) == Cached("vader", path)._key(episode)
    assert Cached("length", path)._key(same) != Cached("length", path)._key(episode)  # it reads token ids
    rewards = [
        "vader",
        "vader(part=continuation)",
        "length",
        "length(target=3)",
        "length(target=4)",
        "2*vader",
        "clip(vader, 0, 1)",
        "clip(vader, 0, 2)",
    ]
    assert len({Cached(r, path)._key(episode) for r in rewards}) == len(rewards)


def test_the_version_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = textgym.make_reward("vader")
    first = Cached(reward, tmp_path / "x")._key(textgym.Episode("a"))
    monkeypatch.setattr(type(reward.terms[0].model), "version", "2")
    assert Cached(reward, tmp_path / "x")._key(textgym.Episode("a")) != first


def test_the_key_does_not_depend_on_the_process(tmp_path: Path) -> None:
    code = (
        "import textgym; from textgym.rewards import Cached; "
        "print(Cached('length(target=3)', 'x')._key(textgym.Episode('a', ' b', metadata={'tags': {'x', 'y', 'z'}, 'n': 1.5})))"
    )
    keys = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(keys) == 1


def test_what_has_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with pytest.raises(textgym.InvalidArgumentError, match=r"no registered name .* pass identity="):
        Cached(Counting(), path)
    with pytest.raises(textgym.InvalidArgumentError, match="is no plain data"):
        Cached("vader", path).score([textgym.Episode("a", metadata={"thing": object()})])

    class Dice(Counting):
        deterministic = False

    with pytest.raises(textgym.InvalidArgumentError, match="not deterministic"):
        Cached(Dice(), path, identity="dice")
    with pytest.raises(textgym.InvalidArgumentError, match="moves in training"):
        Cached("clip(normalize(vader), 0, 1)", path)
    with pytest.raises(textgym.InvalidArgumentError, match="chunk must be an integer"):
        Cached("vader", path, chunk=0)


def test_a_dropped_score_is_not_kept(tmp_path: Path) -> None:
    broken = True

    def sometimes(episodes: Sequence[textgym.Episode]) -> list[float]:
        if broken:
            raise OSError("busy")
        return [1.0 for _ in episodes]

    cached = Cached(Served(sometimes, retries=0, on_failure="drop"), tmp_path / "x", identity="sometimes")
    assert np.isnan(cached.score([textgym.Episode("a")])).all()
    broken = False
    assert cached.score([textgym.Episode("a")]).tolist() == [1.0]


def test_a_file_that_is_no_cache_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database, but long enough to look like a file of some kind" * 20)
    with pytest.raises(textgym.RunDirectoryError, match=r"cannot use the score cache .*notes.txt") as caught:
        ScoreCache(path).put({"a": 1.0})
    assert "\n" not in str(caught.value)
    assert path.read_text().startswith("no database")


def test_scores_come_back_exactly(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "x")
    scores: dict[str, Any] = {str(i): float(v) for i, v in enumerate(np.random.default_rng(0).normal(size=1200) * 1e-3)}
    cache.put(scores)
    cache.put({"0": 5.0})  # the first one stays
    assert cache.get(list(scores)) == scores
    cache.close()
    assert cache.get(["7"]) == {"7": scores["7"]}


def test_a_file_left_open_to_the_end_of_the_program_is_closed_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.put({"key": 1.0})
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with monkeypatch.context() as ending:
        ending.setattr("textgym.rewards.cache.os", None)  # what the interpreter does to modules as it ends
        cache.close()
    assert said == []
