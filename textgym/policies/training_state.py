"""Training state: optimizer, global random generators and an agent's plain data, written without pickle, for an exact resume."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textgym.policies.causal_lm_policy import CausalLMPolicy

STATE_FILE = "training_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"


def save_training_state(folder: Path, policy: CausalLMPolicy, state: Mapping[str, Any]) -> None:
    """Write the optimizer's tensors and everything else as JSON into a folder."""
    from safetensors.torch import save_file

    tensors, plain = {}, {}
    saved = policy.optimizer.state_dict()
    for index, values in saved["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value.contiguous().cpu()
            else:
                plain[f"{index}.{key}"] = value
    save_file(tensors, folder / OPTIMIZER_FILE)
    groups = [
        {k: v for k, v in group.items() if isinstance(v, (int, float, bool, str, list, tuple, type(None)))}
        for group in saved["param_groups"]
    ]
    (folder / STATE_FILE).write_text(
        json.dumps({"agent": state, "generators": _generators(), "optimizer": {"plain": plain, "groups": groups}})
    )


def load_training_state(folder: Path, policy: CausalLMPolicy) -> dict[str, Any] | None:
    """Restore optimizer and generators; return the agent's plain data, or None if the folder holds no training state."""
    from safetensors.torch import load_file

    if not (folder / STATE_FILE).is_file():
        return None
    data = json.loads((folder / STATE_FILE).read_text())
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in load_file(folder / OPTIMIZER_FILE).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for name, value in data["optimizer"]["plain"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    current = policy.optimizer.state_dict()
    groups = [{**new, **old} for new, old in zip(current["param_groups"], data["optimizer"]["groups"], strict=True)]
    policy.optimizer.load_state_dict({"state": state, "param_groups": groups})
    _restore_generators(data["generators"])
    agent: dict[str, Any] = data["agent"]
    return agent


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
