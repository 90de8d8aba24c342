"""Reward folder: a fitted reward model on disk - weights as safetensors, everything else as JSON - whose hashes are checked when it is read."""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError

DESCRIPTION = "reward_model.json"
ENSEMBLE = "reward_ensemble.json"  # of a folder whose sub-folders are the members
DISCRIMINATOR = "discriminator.json"  # of a discriminator over tokens
HISTORY = "history.json"  # grows while fitting goes on, so it is not hashed
FORMAT = 1


def is_reward_folder(path: Path) -> bool:
    """Whether a folder claims to hold a fitted reward model."""
    return (path / DESCRIPTION).is_file()


def is_ensemble_folder(path: Path) -> bool:
    """Whether a folder claims to hold an ensemble of fitted reward models."""
    return (path / ENSEMBLE).is_file()


def refuse_foreign(folder: Path) -> None:
    """Raise if a folder holds something that is no reward model, or beside one something that is no part of it: it would be lost."""
    if not folder.exists():
        return
    descriptions = [name for name in (DESCRIPTION, ENSEMBLE, DISCRIMINATOR) if (folder / name).is_file()]
    if not folder.is_dir() or (not descriptions and any(folder.iterdir())):
        raise InvalidArgumentError(f"{str(folder)!r} exists and holds no reward model; choose another folder")
    own = {HISTORY, *descriptions}
    for name in descriptions:
        try:
            own |= set(json.loads((folder / name).read_text(encoding="utf-8"))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # it was damaged: nobody knows what belonged to it
    for path in sorted(folder.rglob("*")):
        if path.is_file() and str(path.relative_to(folder).as_posix()) not in own and path.name != HISTORY:
            raise InvalidArgumentError(
                f"{str(path)!r} is no part of the reward model beside it and would be lost; move it, or choose another folder"
            )


def describe(folder: Path, description: dict[str, Any], packages: tuple[str, ...], name: str = DESCRIPTION) -> dict[str, Any]:
    """Return a description, to be written as `name`, completed by format, versions, and the hashes of the folder's files and of itself."""
    files = {
        str(path.relative_to(folder).as_posix()): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != HISTORY and path != folder / name
    }
    versions = {package: metadata.version(package) for package in ("textgym", *packages)}
    told = {key: value for key, value in description.items() if key != "sha256"}  # of an earlier saving
    complete = {**told, "format": FORMAT, "versions": versions, "files": files}
    return {**complete, "sha256": _self_hash(complete)}


def read_description(folder: Path, check_versions: bool = True, name: str = DESCRIPTION) -> dict[str, Any]:
    """Return the description of a folder, checked against what lies beside it and what is installed.

    Raises:
        InvalidArgumentError: It is missing, unreadable, of another format, was changed, or was made by another major version of a package.
    """
    where = f"reward model {str(folder)!r}"
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(f"{where}: cannot read {name}: {error.strerror or error}") from None
    except ValueError as error:
        raise InvalidArgumentError(f"{where}: {name} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = found.get("format") if isinstance(found, dict) else None
        raise InvalidArgumentError(f"{where}: {name} has format {got!r}, this textgym reads {FORMAT}: fit again, or use its version")
    stored = found.pop("sha256", None)
    if stored != _self_hash(found):
        raise InvalidArgumentError(f"{where}: {name} was changed after it was saved; restore it or fit again")
    for file, wanted in found["files"].items():
        path = folder / file
        if not path.is_file():
            raise InvalidArgumentError(f"{where}: {file} is missing; restore it or fit again")
        if file_hash(path) != wanted:
            raise InvalidArgumentError(f"{where}: {file} was changed after it was saved (its SHA-256 differs); restore it or fit again")
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
