"""RunDirectory: where a training run keeps its configuration, metrics, checkpoints and final agent, safe against kills and second runs."""

import csv
import fcntl
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter

from textgym.errors import RunDirectoryError
from textgym.files import write_text

LOCK_FILE, CONFIG_FILE, METRICS_FILE, RESULT_FILE = "run.lock", "config.json", "metrics.csv", "result.json"
EVALUATIONS_FILE, FAILURE_FILE = "evaluations.json", "failure.json"


class RunDirectory:
    """One run on disk.

    ```
    config.json       the whole configuration            metrics.csv    one row per iteration, the same for the same seed
    checkpoints/N/    agent and training state at N tokens (the latest only)
    evaluations.json  learning curve on validation prompts             tensorboard/   everything, times included
    agent/            the final agent                    result.json    evaluation on the held-out test prompts
    failure.json      why learning stopped, if it stopped with an error; gone when the run is resumed
    ```

    Args:
        path: The directory; made if missing.
        resume: True to go on with a run that is there, False to demand that none is.

    Raises:
        RunDirectoryError: It cannot be written, is in use by another process, or (not) holds a run.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool = False) -> None:
        self.path = Path(path)
        if resume and not (self.path / CONFIG_FILE).is_file():
            raise RunDirectoryError(f"{self.path} holds no run to resume: {CONFIG_FILE} is missing")
        if not resume and (self.path / CONFIG_FILE).exists():
            raise RunDirectoryError(f"{self.path} already holds a run: choose another directory, or resume it")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / LOCK_FILE, "a")  # noqa: SIM115  # held until close
        except OSError as error:
            raise RunDirectoryError(f"cannot write the run directory {self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it even after kill -9
        except OSError:
            self._lock.close()
            raise RunDirectoryError(f"the run directory {self.path} is in use by another process") from None

    def close(self) -> None:
        """Release the directory."""
        self._lock.close()

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file atomically."""
        write_text(self.path / name, json.dumps(data, indent=1, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Return a JSON file's data, or None if it is not there."""
        return read_json(self.path / name)

    def latest_checkpoint(self) -> Path | None:
        """Return the folder of the newest whole checkpoint."""
        folders = [f for f in (self.path / "checkpoints").glob("*") if f.name.isdigit()]
        return max(folders, key=lambda f: int(f.name), default=None)

    def checkpoint_folder(self, n_tokens: int) -> Path:
        """Return where the checkpoint at `n_tokens` goes (written aside and renamed by whoever writes it)."""
        return self.path / "checkpoints" / f"{n_tokens:012d}"

    def drop_older_checkpoints(self) -> None:
        """Keep the newest checkpoint only, and no remains of unfinished ones."""
        newest = self.latest_checkpoint()
        for folder in (self.path / "checkpoints").glob("*"):
            if folder != newest:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.path / "checkpoints").glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)


class MetricsFile(KVWriter):
    """Writes metrics.csv through stable-baselines3's logger: one row per iteration, without times, so that equal seeds give equal files.

    The file is written whole and atomically each time, so a kill leaves the last complete row; a resumed run drops the rows after its
    checkpoint first.
    """

    def __init__(self, directory: RunDirectory, up_to: int = 0) -> None:
        self._file = directory.path / METRICS_FILE
        self._rows: list[dict[str, str]] = []
        if self._file.is_file():
            with open(self._file, encoding="utf-8", newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["tokens"]) <= up_to]

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:  # noqa: ARG002
        """Add a row."""
        row = {"tokens": str(step)}
        row |= {k: repr(float(v)) for k, v in key_values.items() if not k.startswith("time/") and _is_number(v)}
        self._rows.append(row)
        self._save()

    def _save(self) -> None:
        names = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, sorted(names, key=lambda n: (n != "tokens", n)), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._file, text.getvalue())

    def close(self) -> None:
        """Do nothing: every row is on disk already."""


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def read_json(file: Path) -> Any:
    """Return a JSON file's data, None if it is not there; a file that is damaged raises `RunDirectoryError`."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}") from None


def load_result(path: Path) -> Mapping[str, Any] | None:
    """Return the result of a finished run, or None."""
    found: Mapping[str, Any] | None = read_json(path / RESULT_FILE)
    return found
