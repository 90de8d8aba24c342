"""The scorer "transformer": a pre-trained transformer fine-tuned with its head - all weights, or low-rank adapters (LoRA) on a larger one."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from textgym.errors import InvalidArgumentError, MissingExtraError
from textgym.files import write_text
from textgym.lm.source import resolve_model
from textgym.reward_modeling.reward_folder import folder_hash
from textgym.reward_modeling.scorers.features import padded
from textgym.reward_modeling.scorers.scorer import Prepared, Scorer, TokenView, masked_tokens

if TYPE_CHECKING:
    from typing_extensions import Self

WORD = re.compile("[a-z]+")
LAYER_DECAY = 0.85  # of the learning rate, from each layer to the one below (Howard and Ruder 2018, "ULMFiT", arXiv:1801.06146)


class Transformer(Scorer):
    """A transformer, the mean of its last hidden states over the text, and a linear head.

    Args:
        n_outputs: Outputs for each text.
        model: A registered name ("minilm", "reviews"), a directory or a hub id; encoder or causal language model.
        lora_rank: 0 trains all weights; else adapters of this rank on every linear layer (Hu et al. 2021, "LoRA", arXiv:2106.09685).
        frozen_layers: So many of the lowest layers, and what belongs to no layer (embeddings, a final norm), stay as they were, without
            dropout: no gradient passes through them, so a step costs less. 0 freezes nothing.
        max_tokens: Longer texts are cut.
        dropout: Before the head; the model's own is as its configuration says.
        dtype: In which matrices are multiplied in training: "float32" or "bfloat16". Weights stay float32 and scores are computed in it, so
            that a text's score does not depend on its batch.
        device: Where it runs.
    """

    name = "transformer"
    packages = ("torch", "transformers")
    epochs, batch_size, learning_rate = 4, 32, 2.5e-4

    def __init__(
        self,
        n_outputs: int,
        model: str = "minilm",
        lora_rank: int = 0,
        max_tokens: int = 128,
        dropout: float = 0.1,
        dtype: str = "float32",
        frozen_layers: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        if dtype not in ("float32", "bfloat16"):
            raise InvalidArgumentError(f'transformer: dtype must be "float32" or "bfloat16", got {dtype!r}')
        if max_tokens < 1 or lora_rank < 0:
            raise InvalidArgumentError(f"transformer: max_tokens must be at least 1, lora_rank at least 0, got {max_tokens}, {lora_rank}")
        if frozen_layers < 0 or (frozen_layers and lora_rank):
            raise InvalidArgumentError(
                f"transformer: frozen_layers must be at least 0, and 0 with LoRA, which freezes every layer; got {frozen_layers}"
            )
        path = resolve_model(model)
        self._build(n_outputs, path, _encoder(path, weights=True), model, lora_rank, max_tokens, dropout, dtype, device, frozen_layers)

    def _build(
        self,
        n_outputs: int,
        path: str,
        encoder: Any,
        model: str,
        lora_rank: int,
        max_tokens: int,
        dropout: float,
        dtype: str,
        device: str,
        frozen_layers: int = 0,  # not in the settings of older folders
    ) -> None:
        from transformers import AutoTokenizer

        self.n_outputs, self.model_name, self.lora_rank, self.dtype, self.device = n_outputs, model, lora_rank, dtype, device
        self.dropout_rate = dropout
        self._path = path
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self._pad_id = int(self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._tokenizer.eos_token_id or 0)
        config: Any = encoder.config
        positions = int(getattr(config, "max_position_embeddings", max_tokens))
        self.max_tokens = min(max_tokens, positions, int(self._tokenizer.model_max_length))  # MPNet's last two positions hold no token
        config.pad_token_id = None  # transformers looks for padding in every batch; ours is masked
        if lora_rank:
            try:
                from peft import LoraConfig, get_peft_model
            except ImportError:
                raise MissingExtraError("LoRA", "reward-modeling") from None
            names = sorted({name.rsplit(".", 1)[-1] for name, module in encoder.named_modules() if _is_linear(module)})
            fan_in_fan_out = any(type(module).__name__ == "Conv1D" for module in encoder.modules())
            options = LoraConfig(
                r=lora_rank, lora_alpha=2 * lora_rank, lora_dropout=dropout, target_modules=names, fan_in_fan_out=fan_in_fan_out
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers under an old name
                encoder = get_peft_model(encoder, options)
        self.encoder = encoder
        self.frozen_layers, self._frozen = frozen_layers, _freeze(encoder, frozen_layers)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(int(config.hidden_size))
        self.head = nn.Linear(int(config.hidden_size), n_outputs)
        nn.init.zeros_(self.head.weight)  # the first prediction is the mean of the ratings
        nn.init.zeros_(self.head.bias)
        self.to(device)

    def settings(self) -> dict[str, Any]:
        """Return everything but outputs and device."""
        return {
            "model": self.model_name,
            "lora_rank": self.lora_rank,
            "max_tokens": self.max_tokens,
            "dropout": self.dropout_rate,
            "dtype": self.dtype,
            "frozen_layers": self.frozen_layers,
        }

    def train(self, mode: bool = True) -> "Self":
        """Switch dropout on, save in frozen layers, or off everywhere."""
        super().train(mode)
        for name in self._frozen:
            self.encoder.get_submodule(name).eval()
        return self

    def words(self) -> list[str]:
        """Return the lower-case words that are one token."""
        return sorted({word for token in self._tokenizer.get_vocab() if WORD.fullmatch(word := token.lstrip("\u0120\u2581"))})

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Return the token ids of each text, cut at `max_tokens`; never none at all."""
        if not texts:
            return []
        encoded: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens, verbose=False)["input_ids"]
        return [ids or [self._pad_id] for ids in encoded]

    def embed(self, prepared: Prepared) -> Tensor:
        """Return the mean hidden states, (n, hidden) float32."""
        input_ids, mask = padded(prepared, self._pad_id, self.device)
        low_precision = self.training and self.dtype == "bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=low_precision):
            hidden = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        hidden = hidden.float()
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # type: ignore[no-any-return]

    def forward(self, prepared: Prepared) -> Tensor:
        """Return the outputs, (n, n_outputs)."""
        return self.head(self.dropout(self.norm(self.embed(prepared))))  # type: ignore[no-any-return]

    def token_view(self, text: str) -> TokenView:
        """Return the text token by token, for integrated gradients."""
        ids, masked, spans = masked_tokens(self._tokenizer, text, self.max_tokens, self._pad_id)

        def outputs(embeddings: Tensor) -> Tensor:
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
            hidden = self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state.float()
            return self.head(self.norm(hidden.mean(1)))  # type: ignore[no-any-return]

        table = self.encoder.get_input_embeddings()
        return TokenView(tuple(ids), tuple(masked), tuple(spans), lambda i: table(i.to(self.device)), outputs)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return one group per layer, slower the lower it lies; adapters and head at the full rate."""
        depth = int(getattr(self.encoder.config, "num_hidden_layers", 1))
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = learning_rate if self.lora_rank or not name.startswith("encoder.") else learning_rate * _decay(name, depth)
                groups.setdefault(rate, []).append(parameter)
        return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]

    def sources(self) -> dict[str, str]:
        """Return the base model's hash if only adapters are saved; else the folder holds all."""
        return {self.model_name: folder_hash(self._path)} if self.lora_rank else {}

    def state(self) -> dict[str, Tensor]:
        """Return the weights; with LoRA those of the adapters and the head alone."""
        kept = super().state()
        return {
            name: value.clone() for name, value in kept.items() if not self.lora_rank or "lora_" in name or not name.startswith("encoder.")
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights; raises for a name that is missing or unknown."""
        missing, unknown = self.load_state_dict(dict(state), strict=False)
        absent = [name for name in missing if not self.lora_rank or "lora_" in name or not name.startswith("encoder.")]
        if absent or unknown:
            raise KeyError(f"weights {[*absent, *unknown][:3]}")

    def save_assets(self, folder: Path) -> None:
        """Write tokenizer and configuration, so that the folder needs no base model; with LoRA nothing."""
        if self.lora_rank:
            return
        self._tokenizer.save_pretrained(folder / "encoder")
        write_text(folder / "encoder" / "config.json", json.dumps(self.encoder.config.to_dict(), indent=1, default=str) + "\n")

    @classmethod
    def load(cls, folder: Path, n_outputs: int, settings: Mapping[str, Any], device: str) -> "Transformer":
        """Return the scorer of a folder: with LoRA on its base model, else made from the folder alone."""
        if settings["lora_rank"]:
            return cls(n_outputs, device=device, **settings)
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        path = str(folder / "encoder")
        made._build(n_outputs, path, _encoder(path, weights=False), device=device, **settings)
        return made


def _encoder(path: str, weights: bool) -> Any:
    """Return the transformer without output layers."""
    from transformers import AutoConfig, AutoModel

    from textgym.lm.language_model import no_progress_bars

    model: Any = AutoModel
    try:
        with no_progress_bars():
            loaded = model.from_pretrained(path, dtype=torch.float32) if weights else model.from_config(AutoConfig.from_pretrained(path))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"model {path!r} cannot be loaded: {' '.join(str(error).split())}") from error
    if getattr(loaded, "pooler", None) is not None:
        loaded.pooler = None  # not used: the mean over the text is
    return loaded


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's


def _decay(name: str, depth: int) -> float:
    layer = _layer(name)
    return float(LAYER_DECAY ** (depth - layer if layer is not None else depth + 1))


def _layer(name: str) -> int | None:
    """Return the layer that a module or parameter belongs to, None for what belongs to none (embeddings)."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _freeze(encoder: Any, n_layers: int) -> list[str]:
    """Freeze the embeddings and the lowest layers; return the names of the modules in which nothing is left to train."""
    if not n_layers:
        return []
    depth = int(getattr(encoder.config, "num_hidden_layers", 1))
    if n_layers >= depth:
        raise InvalidArgumentError(f"transformer: frozen_layers must be below {depth}, the number of layers, got {n_layers}")
    for name, parameter in encoder.named_parameters():
        layer = _layer(name)
        parameter.requires_grad_(layer is not None and layer >= n_layers)
    return [
        name for name, module in encoder.named_modules() if (own := list(module.parameters())) and not any(p.requires_grad for p in own)
    ]
