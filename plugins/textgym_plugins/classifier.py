"""The reward "classifier": what a Hugging Face text classifier, or a reward model of that form, says of a text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import textgym


class Classifier:
    """A classifier's probability of a label, 0 .. 1, or the logit of a reward model with a single output.

    Args:
        path: A folder written by `save_pretrained`, safetensors; it is also what `reward="path"` reads. Nothing is downloaded, no code of
            the folder is run.
        label: Whose probability is the score: a name in the model's configuration, or an index; "score" for the logit of a model with one
            output. None is "score" where there is one output; with more, the label must be named.
        pair: True gives the model prompt and continuation as two texts, False as one.
        batch_size: Texts in one pass.
        max_length: Tokens that are read, the last ones; None for all that the model can read.
        device: Where it runs.
        dtype: Of its weights; with "float32" a text scores the same in every batch up to 1e-5, with a shorter dtype it may not.

    Source: the model's own; a logit as reward as in Ouyang et al. (2022), arXiv:2203.02155.
    """

    deterministic = True
    version = "1"

    def __init__(
        self,
        path: str,
        label: str | int | None = None,
        pair: bool = False,
        batch_size: int = 32,
        max_length: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from textgym.lm.language_model import no_progress_bars

        if not self.reads_folder(Path(path)):
            raise textgym.InvalidArgumentError(f"classifier: {path!r} is no folder of a model ...ForSequenceClassification")
        if batch_size < 1 or (max_length is not None and max_length < 1):
            raise textgym.InvalidArgumentError(
                f"classifier: batch_size and max_length must be at least 1, got {batch_size} and {max_length}"
            )
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise textgym.InvalidArgumentError(
                f'classifier: dtype must be the name of a torch dtype ("float32", "bfloat16"), got {dtype!r}'
            )
        self._settings = (path, label, pair, batch_size, max_length, device, dtype)
        self._pair, self._batch_size, self._device = pair, batch_size, device
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with no_progress_bars():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(path, truncation_side="left", padding_side="right", **local)
                model: Any = AutoModelForSequenceClassification.from_pretrained(
                    path, dtype=getattr(torch, dtype), use_safetensors=True, **local
                )
        except (OSError, ValueError) as error:
            raise textgym.InvalidArgumentError(f"classifier: cannot load {path!r}: {' '.join(str(error).split())}") from None
        self._model = model.to(device).eval().requires_grad_(False)
        config = model.config
        if self._tokenizer.pad_token is None:  # decoders; the mask tells padding from text
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        if config.pad_token_id is None:
            config.pad_token_id = self._tokenizer.pad_token_id
        readable = min(
            self._tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        )
        self._max_length = min(max_length or readable, readable)
        self._label = _label_index(label, config.num_labels, config.id2label)
        self._sigmoid = config.problem_type == "multi_label_classification"
        self.low, self.high = (float("-inf"), float("inf")) if self._label is None else (0.0, 1.0)

    def __reduce__(self) -> tuple[type["Classifier"], tuple[Any, ...]]:
        return Classifier, self._settings  # a copy in another process reads the model itself

    @staticmethod
    def reads_folder(path: Path) -> bool:
        """Return True for a folder whose model is a sequence classifier."""
        try:
            architectures = json.loads((path / "config.json").read_text(encoding="utf-8")).get("architectures") or []
        except (OSError, ValueError, AttributeError):
            return False
        return any(str(name).endswith("ForSequenceClassification") for name in architectures)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the probabilities or logits, (n,)."""
        encoded = [self._encode(e) for e in episodes]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))  # little padding
        scores = [0.0] * len(encoded)
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            for i, value in zip(rows, self._forward([encoded[i] for i in rows]), strict=True):
                scores[i] = value
        return scores

    def _encode(self, episode: textgym.Episode) -> dict[str, list[int]]:
        texts = (episode.prompt, episode.continuation) if self._pair else (episode.text,)
        found = dict(self._tokenizer(*texts, truncation=True, max_length=self._max_length, verbose=False))
        if found["input_ids"]:
            return found
        return {name: [self._tokenizer.pad_token_id if name == "input_ids" else int(name == "attention_mask")] for name in found}

    def _forward(self, encoded: Sequence[dict[str, list[int]]]) -> list[float]:
        """Return the scores of one batch."""
        import torch

        columns = {name: [row[name] for row in encoded] for name in encoded[0]}
        batch = self._tokenizer.pad(columns, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            logits = self._model(**batch).logits.float()  # (batch, labels)
        if self._label is None:
            return logits[:, 0].tolist()  # type: ignore[no-any-return]
        probabilities = logits.sigmoid() if self._sigmoid else logits.softmax(-1)
        return probabilities[:, self._label].tolist()  # type: ignore[no-any-return]


def _label_index(label: str | int | None, n_labels: int, names: dict[int, str]) -> int | None:
    """Return the index of the label, or None for the logit of a single output."""
    if n_labels == 1 and label in (None, "score"):
        return None
    for index, name in names.items():
        if label is not None and label is not True and label in (index, name):
            return int(index)
    known = "score" if n_labels == 1 else ", ".join(f"{name} ({index})" for index, name in names.items())
    raise textgym.InvalidArgumentError(f"classifier: label must be one of {known}, got {label!r}")


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "classifier"."""
    register("classifier", Classifier)
