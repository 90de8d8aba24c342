"""ScoreCache: scores kept on disk, safe for several processes and for a kill at any moment; `Cached`, the reward that uses it."""

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, RunDirectoryError
from textgym.rewards.composition import Composite, range_of
from textgym.rewards.protocol import Array, RewardSpec
from textgym.rewards.reward import Reward
from textgym.rewards.term import plain_json

KEYS_PER_QUERY = 500  # below SQLite's limit of bound variables in old builds
PATIENCE = 60.0  # seconds to wait for another process's transaction


class ScoreCache:
    """A table key → score in one SQLite file (write-ahead log).

    A transaction that was committed survives a kill -9 of the process; one that was not leaves no trace. Connections are opened per process
    and thread, so the object may be used after a fork and from threads, and can be pickled.

    Args:
        path: The file; made at the first use, its folder too.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._local = threading.local()

    def get(self, keys: Sequence[str]) -> dict[str, float]:
        """Return the scores of the keys that are there."""
        found: dict[str, float] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            part = list(keys[start : start + KEYS_PER_QUERY])
            marks = ",".join("?" * len(part))
            found.update(self._run(f"SELECT key, score FROM scores WHERE key IN ({marks})", part))
        return found

    def put(self, scores: Mapping[str, float]) -> None:
        """Add scores in one transaction; a key that is there already keeps its score."""
        self._run("INSERT OR IGNORE INTO scores (key, score) VALUES (?, ?)", [(k, float(s)) for k, s in scores.items()], many=True)

    def __len__(self) -> int:
        """Return the number of scores."""
        return int(self._run("SELECT count(*) FROM scores", [])[0][0])

    def _run(self, statement: str, values: Sequence[Any], many: bool = False) -> list[Any]:
        try:
            connection = self._connection()
            with connection:  # commits, or rolls back on an error
                cursor = connection.executemany(statement, values) if many else connection.execute(statement, values)
                return cursor.fetchall()
        except (sqlite3.Error, OSError) as error:
            raise RunDirectoryError(f"cannot use the score cache {self.path}: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        held: _Connection | None = getattr(self._local, "held", None)
        if held is None or held.pid != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = self._local.held = _Connection(self.path)
        return held.connection

    def close(self) -> None:
        """Close this thread's connection; the next use opens it again."""
        self._local.held = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process: SQLite forbids a child to use or even to close them."""


class _Connection:
    """An open file; closed with its last reference, in the process that opened it."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)  # closed by whichever thread lets go last
        patient_until = time.monotonic() + PATIENCE
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait here, when another process is at the same
                if "locked" not in str(error) or time.monotonic() > patient_until:
                    raise
                time.sleep(0.01)
        with self.connection:
            self.connection.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID")

    def __del__(self, process: Callable[[], int] = os.getpid) -> None:  # at the end of the program the module `os` may be gone
        connection = getattr(self, "connection", None)
        if connection is not None:
            if self.pid == process():
                connection.close()
            else:
                _inherited.append(connection)


class Cached(Composite):
    """A reward whose scores are kept in a file: an episode that was scored before, by whatever process, is not scored again.

    The key is made of the plugin with its version and options, prompt, continuation, references, finish reason and metadata; of the token
    ids too if the reward declares `reads_tokens`. New scores are committed after every `chunk` episodes. Dropped episodes are not kept.
    What lies behind an option (a model's folder) may change without the key noticing. Only the reward's own score is kept and
    logged: to see the terms of a sum, cache each of them. Paid at the end of the episode.

    Args:
        reward: What `textgym.make_reward` takes.
        path: The SQLite file.
        identity: Of a reward from code, which has no name: change it whenever its scores change.
        chunk: Episodes scored between two commits.
    """

    def __init__(self, reward: "RewardSpec | Reward", path: str | os.PathLike[str], identity: str | None = None, chunk: int = 64) -> None:
        super().__init__(reward)
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise InvalidArgumentError(f"cached: chunk must be an integer of at least 1, got {chunk!r}")
        if not self.deterministic:
            raise InvalidArgumentError(
                f"cached: {self.inside[0].name} declares that it is not deterministic; a cache would freeze its chance"
            )
        if self.learns:
            raise InvalidArgumentError(f"cached: {self.inside[0].name} moves in training; cache what is inside: normalize(cached(...))")
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise InvalidArgumentError(f"cached: path must be the name of a file, got {path!r}")
        self.chunk, self.cache = chunk, ScoreCache(path)
        self.of = identity or self.inside[0].identity()
        self.low, self.high = range_of(self.inside[0])
        self.n_scored = 0

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores, from the file where they are in it."""
        keys = [self._key(episode) for episode in episodes]
        known = self.cache.get(list(dict.fromkeys(keys)))
        missing = {key: episode for key, episode in zip(keys, episodes, strict=True) if key not in known}
        wanted = list(missing.items())
        dropped = dict[str, float]()
        for start in range(0, len(wanted), self.chunk):
            part = wanted[start : start + self.chunk]
            scores = self.inside[0].score_terms([episode for _, episode in part], learning)[0]
            self.n_scored += len(part)
            fresh = {key: float(score) for (key, _), score in zip(part, scores, strict=True)}
            kept = {key: score for key, score in fresh.items() if np.isfinite(score)}
            self.cache.put(kept)
            known.update(kept)
            dropped.update({key: score for key, score in fresh.items() if key not in kept})
        result = np.array([known.get(key, dropped.get(key, np.nan)) for key in keys], np.float64)
        return result, {self.inside[0].name: result}

    def identity(self) -> str:
        """Return the identity of the reward inside: keeping scores does not change them."""
        return self.of

    def _key(self, episode: Episode) -> str:
        parts: list[Any] = [
            self.of,
            episode.prompt,
            episode.continuation,
            list(episode.references),
            episode.finish_reason,
            dict(episode.metadata),
        ]
        if self.reads_tokens:
            parts += [list(episode.prompt_ids), list(episode.continuation_ids)]
        return hashlib.sha256(plain_json(parts).encode()).hexdigest()
