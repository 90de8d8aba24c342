"""Reward folder: a fitted reward model on disk - weights as safetensors, everything else as JSON - whose hashes are checked when it is read."""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError

DESCRIPTION = "reward_model.json"
HISTORY = "history.json"  # grows while fitting goes on, so it is not hashed
FORMAT = 1


def is_reward_folder(path: Path) -> bool:
    """Whether a folder claims to hold a fitted reward model."""
    return (path / DESCRIPTION).is_file()


def describe(folder: Path, description: dict[str, Any], packages: tuple[str, ...]) -> dict[str, Any]:
    """Return a description completed by format, versions, and the hashes of the files in `folder` and of itself."""
    files = {
        str(path.relative_to(folder).as_posix()): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (DESCRIPTION, HISTORY)
    }
    versions = {package: metadata.version(package) for package in ("textgym", *packages)}
    complete = {"format": FORMAT, **description, "versions": versions, "files": files}
    return {**complete, "sha256": _self_hash(complete)}


def read_description(folder: Path, check_versions: bool = True) -> dict[str, Any]:
    """Return the description of a folder, checked against what lies beside it and what is installed.

    Raises:
        InvalidArgumentError: It is missing, unreadable, of another format, was changed, or was made by another major version of a package.
    """
    where = f"reward model {str(folder)!r}"
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(f"{where}: cannot read {DESCRIPTION}: {error.strerror or error}") from None
    except ValueError as error:
        raise InvalidArgumentError(f"{where}: {DESCRIPTION} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = found.get("format") if isinstance(found, dict) else None
        raise InvalidArgumentError(f"{where}: {DESCRIPTION} has format {got!r}, this textgym reads {FORMAT}: fit again, or use its version")
    stored = found.pop("sha256", None)
    if stored != _self_hash(found):
        raise InvalidArgumentError(f"{where}: {DESCRIPTION} was changed after it was saved; restore it or fit again")
    for name, wanted in found["files"].items():
        path = folder / name
        if not path.is_file():
            raise InvalidArgumentError(f"{where}: {name} is missing; restore it or fit again")
        if file_hash(path) != wanted:
            raise InvalidArgumentError(f"{where}: {name} was changed after it was saved (its SHA-256 differs); restore it or fit again")
    if check_versions:
        for package, version in found["versions"].items():
            installed = _installed(package)
            if installed is None:
                raise InvalidArgumentError(f"{where} needs {package}, fitted with {version}: install it")
            if installed.split(".")[0] != version.split(".")[0]:
                raise InvalidArgumentError(
                    f"{where} was fitted with {package} {version}, installed is {installed}: install that, fit again, "
                    "or pass check_versions=False"
                )
    return found


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def folder_hash(folder: str) -> str:
    """Return one SHA-256 over a model folder's weights, tokenizer and configuration; for a hub id, of its name."""
    path = Path(folder)
    if not path.is_dir():
        return hashlib.sha256(folder.encode()).hexdigest()
    files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in (".safetensors", ".json", ".txt", ".model"))
    return hashlib.sha256("".join(f"{p.name} {file_hash(p)}\n" for p in files).encode()).hexdigest()


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _self_hash(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
