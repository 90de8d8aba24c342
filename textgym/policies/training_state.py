"""Training state: optimizers, modules, arrays, global random generators and an agent's plain data, without pickle, for an exact resume."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

STATE_FILE = "training_state.json"
OPTIMIZERS_FOLDER, MODULES_FOLDER, ARRAYS_FILE = "optimizers", "modules", "arrays.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """What an exactly resumed run needs beside the policy's weights.

    Attributes:
        optimizers: Name → optimizer.
        modules: Name → network that is not the policy: critics, target networks, discriminators.
        arrays: Name → large numbers, such as a replay's tokens.
        plain: Everything else, as JSON takes it.
    """

    optimizers: Mapping[str, torch.optim.Optimizer]
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)


def save_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write the weights of named networks, a file each."""
    from safetensors.torch import save_model

    for name, module in modules.items():
        (folder / MODULES_FOLDER).mkdir(exist_ok=True)
        save_model(module, str(folder / MODULES_FOLDER / f"{name}.safetensors"))


def load_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Restore the networks whose weights the folder holds."""
    from safetensors.torch import load_model

    for name, module in modules.items():
        file = folder / MODULES_FOLDER / f"{name}.safetensors"
        if file.is_file():
            load_model(module, str(file))


def save_training_state(folder: Path, state: TrainingState) -> None:
    """Write a training state into a folder."""
    from safetensors.numpy import save_file

    save_modules(folder, state.modules)
    described = {name: _save_optimizer(folder, name, optimizer) for name, optimizer in state.optimizers.items()}
    if state.arrays:
        save_file({name: np.ascontiguousarray(array) for name, array in state.arrays.items()}, folder / ARRAYS_FILE)
    data = {"agent": state.plain, "generators": _generators(), "optimizers": described}
    (folder / STATE_FILE).write_text(json.dumps(data))


def load_training_state(
    folder: Path, optimizers: Mapping[str, torch.optim.Optimizer], modules: Mapping[str, nn.Module]
) -> TrainingState | None:
    """Restore optimizers, modules and generators; return the whole state, or None if the folder holds none."""
    from safetensors.numpy import load_file

    if not (folder / STATE_FILE).is_file():
        return None
    data = json.loads((folder / STATE_FILE).read_text())
    load_modules(folder, modules)
    for name, optimizer in optimizers.items():
        _load_optimizer(folder, name, optimizer, data["optimizers"][name])
    arrays = load_file(folder / ARRAYS_FILE) if (folder / ARRAYS_FILE).is_file() else {}
    _restore_generators(data["generators"])
    return TrainingState(optimizers, modules, arrays, data["agent"])


def _save_optimizer(folder: Path, name: str, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    from safetensors.torch import save_file

    tensors, plain = {}, {}
    saved = optimizer.state_dict()
    for index, values in saved["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value.contiguous().cpu()
            else:
                plain[f"{index}.{key}"] = value
    (folder / OPTIMIZERS_FOLDER).mkdir(exist_ok=True)
    save_file(tensors, folder / OPTIMIZERS_FOLDER / f"{name}.safetensors")
    groups = [
        {k: v for k, v in group.items() if isinstance(v, (int, float, bool, str, list, tuple, type(None)))}
        for group in saved["param_groups"]
    ]
    return {"plain": plain, "groups": groups}


def _load_optimizer(folder: Path, name: str, optimizer: torch.optim.Optimizer, described: Mapping[str, Any]) -> None:
    from safetensors.torch import load_file

    state: dict[int, dict[str, Any]] = {}
    for entry, tensor in load_file(folder / OPTIMIZERS_FOLDER / f"{name}.safetensors").items():
        index, key = entry.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for entry, value in described["plain"].items():
        index, key = entry.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    current = optimizer.state_dict()
    groups = [{**new, **old} for new, old in zip(current["param_groups"], described["groups"], strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _generators() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002  # the one stable-baselines3 draws from
    version, internal, gauss_next = random.getstate()
    found = {
        "python": [version, list(internal), gauss_next],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state().tolist(),
    }
    if torch.cuda.is_available():
        found["cuda"] = [s.tolist() for s in torch.cuda.get_rng_state_all()]
    return found


def _restore_generators(saved: Mapping[str, Any]) -> None:
    version, internal, gauss_next = saved["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(saved["torch"], dtype=torch.uint8))
    if "cuda" in saved and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in saved["cuda"]])
