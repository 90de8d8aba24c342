"""Low-rank adapters (LoRA): the few weights that are trained in place of all of a language model's."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.lm.source import ADAPTER_BASE, ADAPTER_CONFIG, resolve_model

ADAPTER_WEIGHTS = "adapter_model.safetensors"  # peft's name
PREFIX = "base_model.model."  # what peft puts before the names of weights


@dataclass(frozen=True)
class LoRA:
    """What the adapters are like.

    Attributes:
        rank: Of the change W + (alpha / rank) · B A of every adapted matrix, A (rank, in) and B (out, rank).
        alpha: Its scale; twice the rank by default.
        targets: Names of the adapted modules, or "all-linear"; by default what peft chooses for the architecture, the attention's projections.

    References:
        Hu et al. 2021, arXiv:2106.09685.
    """

    rank: int
    alpha: float | None = None
    targets: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise InvalidArgumentError(f"lora_rank must be 0 (all weights learn) or an integer of at least 1, got {self.rank!r}")
        if self.alpha is not None and not self.alpha > 0:
            raise InvalidArgumentError(f"lora_alpha must be greater than 0, got {self.alpha}")


def add_adapters(model: nn.Module, lora: LoRA) -> None:
    """Put adapters into a Hugging Face model; its own weights are frozen, and its outputs are the same as before, for B begins at 0.

    A is drawn from torch's global generator. Nothing is dropped out, or the log-probabilities of rollout and update would differ.
    """
    peft = _peft()
    targets = lora.targets if lora.targets is None or isinstance(lora.targets, str) else list(lora.targets)
    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())
    _inject(model, peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha or 2 * lora.rank, target_modules=targets, fan_in_fan_out=transposed))


def load_adapters(model: nn.Module, folder: str | os.PathLike[str], lora: LoRA | None) -> None:
    """Put a folder's adapters into their base model: kept apart and trainable for `lora`, merged into its weights for None."""
    from safetensors.torch import load_file

    peft = _peft()
    config = peft.LoraConfig.from_pretrained(str(folder))
    if lora is not None and lora.rank != config.r:
        raise InvalidArgumentError(f"the adapters in {os.fspath(folder)!r} have rank {config.r}, not lora_rank={lora.rank}")
    config.inference_mode = False
    _inject(model, config)
    saved = load_file(Path(folder) / ADAPTER_WEIGHTS)
    peft.set_peft_model_state_dict(model, {name.removeprefix(PREFIX): weight for name, weight in saved.items()})
    if lora is None:
        for parent in list(model.modules()):
            children: list[tuple[str, Any]] = list(parent.named_children())
            for name, child in children:
                if _is_adapted(child):
                    child.merge()
                    setattr(parent, name, child.get_base_layer())
        del model.peft_config
        model.requires_grad_(True)


def save_adapters(model: Any, folder: str | os.PathLike[str], base: str) -> None:
    """Write adapters as peft does, so that `AutoModelForCausalLM.from_pretrained` finds base and adapters.

    Args:
        model: With adapters.
        folder: Exists.
        base: The base model as it was named.
    """
    from safetensors.torch import save_file

    path = Path(folder)
    weights = {PREFIX + name: w.detach().contiguous().cpu() for name, w in _peft().get_peft_model_state_dict(model).items()}
    save_file(weights, path / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (config,) = model.peft_config.values()
    described = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    described |= {"base_model_name_or_path": resolve_model(base), "task_type": "CAUSAL_LM", "inference_mode": True}
    (path / ADAPTER_CONFIG).write_text(json.dumps(described, indent=2, sort_keys=True, default=str) + "\n")
    (path / ADAPTER_BASE).write_text(json.dumps({"base": base}) + "\n")


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off: the model is its base."""
    adapted: list[Any] = [module for module in model.modules() if _is_adapted(module)]
    for module in adapted:
        module._disable_adapters = True  # what peft's own switch sets, which also freezes the adapters
    try:
        yield
    finally:
        for module in adapted:
            module._disable_adapters = False


def _inject(model: nn.Module, config: Any) -> None:
    try:
        _peft().inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InvalidArgumentError(f"no adapters for {type(model).__name__}: {' '.join(str(error).split())}") from None
    adapted = {id(p) for m in model.modules() if _is_adapted(m) for n, p in m.named_parameters() if "lora_" in n}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in adapted)


def _is_adapted(module: nn.Module) -> Any:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(module, BaseTunerLayer)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise MissingExtraError("LoRA (lora_rank)", "lora") from None
    return peft
