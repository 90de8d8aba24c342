"""LanguageModel: a Hugging Face causal LM behind the few methods that policies need - hidden states, logits, saving."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from textgym.errors import InvalidArgumentError
from textgym.lm.adapters import LoRA, add_adapters, load_adapters, save_adapters, without_adapters
from textgym.lm.packing import PackedBatch
from textgym.lm.row_cache import RowCache
from textgym.lm.source import base_of, has_weights, is_adapter_folder, resolve_model


class LanguageModel(nn.Module):
    """A causal LM split into its trunk (tokens → hidden states) and its output layer (hidden states → logits).

    Args:
        model: A Hugging Face causal LM. Its logits must be a plain output layer on the trunk's last hidden state, which is checked.
        autocast: Compute in this dtype with the weights as they are; None computes in the weights' dtype.
        adapter_base: Name of the model that its adapters (LoRA) belong to; "" without adapters.
    """

    def __init__(self, model: Any, autocast: torch.dtype | None = None, adapter_base: str = "") -> None:
        super().__init__()
        self.autocast: torch.dtype | None = None
        self.adapter_base = adapter_base
        self.model = model
        self.trunk = [model.base_model]  # in lists, so that their parameters are not registered twice
        self.output = [model.get_output_embeddings()]
        # With a pad id, transformers looks for padding in every batch and warns; ours is always masked or to the right of causal attention.
        self._pad_token_id, model.config.pad_token_id = model.config.pad_token_id, None
        self._check_output_layer()  # in the weights' own precision
        self.autocast = autocast

    @property
    def hidden_size(self) -> int:
        """Size of a hidden state."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def vocabulary_size(self) -> int:
        """Number of logits."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype that is computed in: of the weights, unless another was given."""
        dtype: torch.dtype = self.output[0].weight.dtype
        return self.autocast or dtype

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., vocab) of hidden states (..., hidden)."""
        with self._precision():
            logits: Tensor = self.output[0](hidden)
        return logits

    def packed_hidden(self, batch: PackedBatch) -> Tensor:
        """Return the hidden state that chose each action, (T, hidden), in one pass over the batch."""
        options: dict[str, Any] = {}
        if batch.segment_ids is not None:
            options = {"attention_mask": batch.attention_mask(self.dtype), "position_ids": batch.position_ids}
        with self._precision():
            hidden = self.trunk[0](input_ids=batch.input_ids, use_cache=False, **options).last_hidden_state
        return hidden[batch.action_rows, batch.action_columns]  # type: ignore[no-any-return]

    def last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the hidden state at the end of each right-padded prefix, (n, hidden), without a cache.

        Args:
            input_ids: (n, L) int64.
            lengths: (n,) int64.
        """
        width = int(lengths.max())
        # causal attention never looks right, so right padding needs no mask
        with self._precision():
            hidden = self.trunk[0](input_ids=input_ids[:, :width], use_cache=False).last_hidden_state
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]  # type: ignore[no-any-return]

    def prefill(self, cache: RowCache, rows: Tensor, input_ids: Tensor) -> None:
        """Read the starts of texts (m, q) into the cache's `rows` (m,), from column 0; padding on the right is overwritten later."""
        columns = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        cache.write_to(rows, columns, input_ids.shape[1])
        visible = torch.ones(input_ids.shape[1], input_ids.shape[1], dtype=torch.bool, device=input_ids.device).tril()
        mask = self._additive(visible)[None, None].expand(len(input_ids), 1, -1, -1)
        with self._precision():
            self.trunk[0](input_ids=input_ids, attention_mask=mask, position_ids=columns, past_key_values=cache, use_cache=True)

    def decode(self, cache: RowCache, tokens: Tensor, columns: Tensor, width: int) -> Tensor:
        """Read one token (n,) at the given columns (n,) into every row; return the hidden states (n, hidden)."""
        cache.write_to(None, columns[:, None], width)
        visible = torch.arange(width, device=columns.device) <= columns[:, None]  # (n, width)
        with self._precision():
            hidden = self.trunk[0](
                input_ids=tokens[:, None],
                attention_mask=self._additive(visible)[:, None, None],
                position_ids=columns[:, None],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        return hidden[:, 0]  # type: ignore[no-any-return]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a Hugging Face model folder (safetensors); with adapters, of these alone and where their base is found."""
        self.model.config.pad_token_id = self._pad_token_id
        try:
            if self.adapter_base:
                save_adapters(self.model, folder, self.adapter_base)
                return
            with no_progress_bars():
                self.model.save_pretrained(folder)
        finally:
            self.model.config.pad_token_id = None

    def base(self) -> AbstractContextManager[None]:
        """Return a context in which the adapters are switched off."""
        return without_adapters(self.model) if self.adapter_base else nullcontext()

    def is_based_on(self, model: str | os.PathLike[str]) -> bool:
        """Say whether the model without its adapters is the given one."""
        return bool(self.adapter_base) and resolve_model(self.adapter_base) == resolve_model(model)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.output[0].weight.device.type, self.autocast)

    def _additive(self, visible: Tensor) -> Tensor:
        zeros = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device)
        return zeros.masked_fill_(~visible, torch.finfo(self.dtype).min)

    @torch.no_grad()
    def _check_output_layer(self) -> None:
        """Refuse models that do something to their logits after the output layer (soft-capping, scaling)."""
        if self.output[0] is None:
            raise InvalidArgumentError(f"{type(self.model).__name__} has no output layer; a causal language model is needed")
        if next(self._weights()).device.type == "meta":
            return
        probe = torch.zeros(1, 2, dtype=torch.long, device=next(self._weights()).device)
        was_training = self.model.training
        self.model.eval()
        ours = self.logits(self.trunk[0](input_ids=probe, use_cache=False).last_hidden_state)
        theirs = self.model(input_ids=probe, use_cache=False).logits
        self.model.train(was_training)
        if not torch.allclose(ours.float(), theirs.float(), atol=1e-3, rtol=1e-3):
            raise InvalidArgumentError(f"{type(self.model).__name__} changes its logits after the output layer, which is not supported")

    def _weights(self) -> Iterator[nn.Parameter]:
        yield from self.model.parameters()


def load_language_model(
    model: str | os.PathLike[str],
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    attention: str = "sdpa",
    autocast: str | torch.dtype | None = None,
    lora: LoRA | None = None,
    gradient_checkpointing: bool = False,
) -> LanguageModel:
    """Load a causal LM by registered name, directory, `.gguf` file or hub id.

    Dropout is set to 0: with it, the log-probabilities of rollout and update disagree (PPO's first ratio would not be 1). A folder with a
    configuration but no weights gives a freshly initialised model, drawn from torch's global generator.

    Args:
        model: As for `resolve_model`.
        dtype: Of the weights: "float32", "bfloat16", ...
        device: Where the weights live.
        attention: Hugging Face's `attn_implementation`; "eager" where second derivatives are needed (TRPO).
        autocast: Dtype to compute in, "bfloat16", with weights of `dtype` (torch's autocast); None or "" for that of the weights.
        lora: Train low-rank adapters in place of the weights. A folder of adapters gives its own; without `lora` they are merged.
        gradient_checkpointing: Compute the activations of a layer again in the backward pass instead of keeping them.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve_model(model)
    base = base_of(path) if is_adapter_folder(path) else os.fspath(model)
    adapters, path = (path if is_adapter_folder(path) else None), resolve_model(base)
    torch_dtype = _dtype("dtype", dtype)
    if lora is not None and not has_weights(path):
        raise InvalidArgumentError(f"model {os.fspath(model)!r} has no weights yet, and adapters change a trained model: pass lora_rank=0")
    config: Any = AutoConfig.from_pretrained(path)
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    try:
        if not has_weights(path):
            options: Any = {"dtype": torch_dtype, "attn_implementation": attention}
            loaded: Any = AutoModelForCausalLM.from_config(config, **options)  # type: ignore[no-untyped-call]
        else:
            with no_progress_bars():
                loaded = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch_dtype, attn_implementation=attention)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"model {os.fspath(model)!r} cannot be loaded: {' '.join(str(error).split())}") from error
    _fuse_gelu(loaded)
    if adapters is not None:
        load_adapters(loaded, adapters, lora)
    elif lora is not None:
        add_adapters(loaded, lora)
    if gradient_checkpointing:
        # the name that transformers is leaving behind, in versions that know no other
        enable = getattr(loaded, "activation_checkpointing_enable", None) or loaded.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return LanguageModel(loaded.to(device), _dtype("autocast", autocast) if autocast else None, base if lora is not None else "")


def _dtype(name: str, given: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, given, None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype):
        raise InvalidArgumentError(f"{name} must be one of torch's, like 'float32' or 'bfloat16', got {given!r}")
    return found


def _fuse_gelu(model: nn.Module) -> None:
    """Put torch's one-kernel GELU where transformers' "gelu_new" computes the same function in seven steps (and keeps seven tensors)."""
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars for loading and saving, which would run through our own."""
    from transformers.utils import logging as hugging_face_logging

    logging: Any = hugging_face_logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
