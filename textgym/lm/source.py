"""Model source: the directory (or hub id) in which a named, local, GGUF or hub language model is found."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from textgym.errors import InvalidArgumentError, MissingExtraError, UnknownNameError
from textgym.plugin_manager import installed_plugins

ADAPTER_CONFIG = "adapter_config.json"  # peft's; a folder that has it holds adapters of another model
ADAPTER_BASE = "adapter_base.json"  # that model by the name it was given, which, unlike peft's path, is the same on every machine


def resolve_model(model: str | os.PathLike[str]) -> str:
    """Return what `from_pretrained` understands for a model given by any of its names.

    Args:
        model: A registered name ("reviews"), a directory, a `.gguf` file (converted once into the user's cache folder), or a hub id
            ("owner/name", loaded by Hugging Face from its own cache or the hub).

    Returns:
        A directory's path, or the hub id itself.

    Raises:
        UnknownNameError: Nothing is called so.
        InvalidArgumentError: The path exists but holds no model.
    """
    name = os.fspath(model)
    plugins = installed_plugins()
    if plugins.knows("model", name):
        name = os.fspath(plugins.find("model", name).factory())
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file() and not is_adapter_folder(path):
            raise InvalidArgumentError(f"model directory {name!r} holds no config.json; give a folder written by save_pretrained")
        return name
    if path.is_file():
        if path.suffix != ".gguf":
            raise InvalidArgumentError(f"model file {name!r} is not a .gguf file; give a directory, a .gguf file or a registered name")
        return str(_converted_gguf(path))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir():
        return name
    raise UnknownNameError("model", name, plugins.registrations("model"))


def is_adapter_folder(path: str | os.PathLike[str]) -> bool:
    """Say whether a resolved model is a folder of adapters rather than of a whole model."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def base_of(folder: str | os.PathLike[str]) -> str:
    """Return the name of the model that a folder's adapters belong to."""
    path = Path(folder)
    if (path / ADAPTER_BASE).is_file():
        return str(json.loads((path / ADAPTER_BASE).read_text())["base"])
    return str(json.loads((path / ADAPTER_CONFIG).read_text())["base_model_name_or_path"])


def has_weights(model: str | os.PathLike[str]) -> bool:
    """Return False for a local folder with a configuration but no weights, which is initialised afresh whenever it is loaded."""
    path = Path(resolve_model(model))
    return not path.is_dir() or any(path.glob("*.safetensors"))


def cache_folder() -> Path:
    """Return the folder for converted models: $XDG_CACHE_HOME/textgym, by default ~/.cache/textgym."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textgym"


def _converted_gguf(path: Path) -> Path:
    """Return the safetensors folder of a GGUF file; dequantising it takes seconds to minutes, so it is done once."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache_folder() / f"{path.stem}-{key}"
    if (target / "config.json").is_file():
        return target
    try:
        import accelerate  # noqa: F401  # transformers asks for it when it reads GGUF
        import gguf  # noqa: F401
    except ImportError:
        raise MissingExtraError(f"reading {path.name}", "gguf") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers annotates its factories too loosely for strict typing
    quantised: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model: Any = AutoModelForCausalLM.from_config(quantised.config)  # type: ignore[no-untyped-call]  # the dequantised one refuses save_pretrained
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        model.to(torch.bfloat16).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if not target.exists():
            aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
