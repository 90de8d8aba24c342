"""JudgementStore: a collection and every click of its raters in one SQLite file; what `add` has returned from survives a kill."""

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError, RunDirectoryError
from textgym.rating.collection import Collection, Item, rater_name

APPLICATION_ID = 0x74677261  # "tgra": tells such a file from any other SQLite file
FORMAT = 1
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL, texts TEXT NOT NULL, sources TEXT NOT NULL);
-- only ever added to: the newest click of a rater on an item counts; one without a value takes the judgement back
CREATE TABLE clicks (number INTEGER PRIMARY KEY, rater TEXT NOT NULL, item TEXT NOT NULL REFERENCES items (id), value INTEGER,
    swapped INTEGER NOT NULL, seconds REAL, time TEXT NOT NULL);
CREATE INDEX clicks_of_rater ON clicks (rater, item);
CREATE VIEW judgements AS SELECT * FROM clicks
    WHERE number IN (SELECT max(number) FROM clicks GROUP BY rater, item) AND value IS NOT NULL ORDER BY number;
"""


@dataclass(frozen=True)
class Judgement:
    """What one rater said of one item, as it stands.

    Attributes:
        item: Id of the item.
        rater: Who.
        value: The rating; in pairs positive for the first text, negative for the second, 0 for neither.
        swapped: Whether the second text stood on the left.
        seconds: From showing to click, where the page told.
        time: When, UTC, ISO 8601.
    """

    item: str
    rater: str
    value: int
    swapped: bool
    seconds: float | None
    time: str


class JudgementStore:
    """An open file of judgements; may be used by several threads, and the file by several processes.

    Args:
        path: An existing file; `create` makes one.

    Attributes:
        collection, items: What is judged.
        token: The secret part of the page's address; kept, so that open pages go on after a restart.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InvalidArgumentError(f"{self.path} does not exist: give sources of texts to start a collection there")
        self._lock = threading.Lock()
        with _errors_of(self.path):
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            settings, self.items = self._open()
        except BaseException:
            self._connection.close()
            raise
        self.token = str(settings["token"])
        self.collection = Collection.from_described(json.loads(settings["collection"]))
        self._places = {item.id: place for place, item in enumerate(self.items)}

    def _open(self) -> tuple[dict[str, str], list[Item]]:
        """Check that the file is one of ours, set it up, and return its settings and items."""
        with _errors_of(self.path):
            (found,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found != APPLICATION_ID:
                raise InvalidArgumentError(f"{self.path} is no file of judgements: choose another file")
            if version != FORMAT:
                raise InvalidArgumentError(f"{self.path} has format {version}, this textgym reads format {FORMAT}")
            # every statement is its own transaction, synced before it returns; readers and writers do not block each other
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            settings = dict(self._connection.execute("SELECT name, value FROM settings"))
            rows = self._connection.execute("SELECT id, prompt, texts, sources FROM items ORDER BY place").fetchall()
        return settings, [Item(i, prompt, tuple(json.loads(texts)), tuple(json.loads(sources))) for i, prompt, texts, sources in rows]

    @classmethod
    def create(cls, path: str | os.PathLike[str], collection: Collection, items: Sequence[Item]) -> "JudgementStore":
        """Make the file, readable by its owner alone, and open it; all of it is written at once or nothing is."""
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise RunDirectoryError(f"cannot write {file}: {error.strerror or error}") from error
        try:
            with _errors_of(file):
                connection = sqlite3.connect(aside, isolation_level=None)
                connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; BEGIN; {SCHEMA}")
                settings = {"collection": json.dumps(collection.described()), "token": secrets.token_urlsafe(24)}
                connection.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
                rows = [(place, item.id, item.prompt, json.dumps(item.texts), json.dumps(item.sources)) for place, item in enumerate(items)]
                connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)
                connection.execute("COMMIT")
                connection.close()
            if file.exists():
                raise RunDirectoryError(f"cannot write {file}: it exists already")
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)
        return cls(file)

    def add(self, rater: str, item: str, value: int | None, seconds: float | None = None) -> None:
        """Store a click; it is on the disk when this returns.

        Args:
            rater: Who.
            item: Id of the item.
            value: One of the collection's values, as in `Judgement`; None takes the judgement back.
            seconds: From showing to click.
        """
        name = rater_name(rater)
        swapped = self.swapped(name, item)
        values = self.collection.values
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value not in values):
            raise InvalidArgumentError(f"a judgement is an integer from {values[0]} to {values[-1]}, got {value!r}")
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 <= seconds < float("inf")):
            raise InvalidArgumentError(f"seconds must be a number of at least 0, got {seconds!r}")
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        row = (name, item, value, swapped, seconds, now)
        with self._lock, _errors_of(self.path):
            self._connection.execute("INSERT INTO clicks (rater, item, value, swapped, seconds, time) VALUES (?, ?, ?, ?, ?, ?)", row)

    def swapped(self, rater: str, item: str) -> bool:
        """Return whether this rater sees the second text of an item on the left."""
        if item not in self._places:
            raise InvalidArgumentError(f"there is no item {item!r}")
        return self.collection.mode == "pairs" and self.collection.swapped(rater, len(self.items))[self._places[item]]

    def judgements(self, rater: str | None = None) -> list[Judgement]:
        """Return what stands, in the order of the clicks; of one rater, or of all."""
        query = "SELECT item, rater, value, swapped, seconds, time FROM judgements WHERE ? IS NULL OR rater = ?"
        with self._lock, _errors_of(self.path):
            rows = self._connection.execute(query, (rater, rater)).fetchall()
        return [Judgement(item, name, value, bool(swapped), seconds, time) for item, name, value, swapped, seconds, time in rows]

    def next_item(self, rater: str) -> Item | None:
        """Return what this rater judges next; None when all is done."""
        done = {judgement.item for judgement in self.judgements(rater)}
        order = self.collection.order(rater, len(self.items))
        return next((self.items[i] for i in order if self.items[i].id not in done), None)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


@contextmanager
def _errors_of(path: Path) -> Iterator[Any]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise RunDirectoryError(f"cannot use {path} as a file of judgements: {error}") from error
