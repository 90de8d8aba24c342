"""The scorer "compact": a linear model on n-grams beside a small convolution over word vectors, fast on a CPU and a few MB large."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from textgym.errors import InvalidArgumentError
from textgym.files import write_text
from textgym.reward_modeling.scorers import scaled_ridge
from textgym.reward_modeling.scorers.compact_model import BLOCKS, FILE, UNKNOWN, WIDTHS, CompactModel, FeatureIndex, TextInput
from textgym.reward_modeling.scorers.scorer import Prepared, Scorer

WORD_DROPOUT = 0.1  # share of the words that are unknown in a training step: the others must do, and "unknown" gets a meaning
VECTOR_DROPOUT = 0.2
ALONE = 0.7  # share of the texts that the deep part, doubled, answers alone in a training step: so it stays a judge of its own
HIDDEN = 64
LIMIT = 2.5  # at first; outputs are limited smoothly, so that piling up praise pays less and less
WORDS_AT_ONCE = 512


class Compact(Scorer):
    """A wide and a deep part, added (Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems", arXiv:1606.07792).

    The wide part is linear in binary n-gram features (words; beginnings of one to three words; two to five characters; negation is marked
    in all), weighted by idf and divided by their norm: a scaled ridge, solved at once before the first step and kept. The deep part is a
    convolution over word vectors with max and mean pooling (Kim 2014, "Convolutional Neural Networks for Sentence Classification",
    arXiv:1408.5882). It learns what the wide part leaves over on texts that were left out when that was fitted (Wolpert 1992, "Stacked
    Generalization"): on its own training texts a model of so many features leaves nothing over. The vectors may begin as those that a larger
    fitted model computes for each word alone, reduced by principal components: so the network knows words that no training text has.

    Scores are computed by `CompactModel` in numpy. A saved model keeps one byte for each number of the vectors and two for the rest; what is
    kept is what scores, also before it is saved.

    Args:
        n_outputs: Outputs for each text.
        vectors: Folder of a fitted reward model that embeds texts (scorer "transformer"), for the first word vectors; "" for random ones.
        size: Of a word vector.
        filters: For each width of the convolution.
        dropout: Before each layer of the head, in training.
        penalty: Of the wide part's squared norm, against the sum of its squared errors in standard deviations of the judgements.
        min_texts: A feature, and a word that is none of the vectors' own, must occur in so many training texts.
        device: Where it is trained.
    """

    name = "compact"
    packages = ("numpy",)
    epochs, batch_size, learning_rate = 6, 64, 3e-3
    linear: Tensor
    middle: Tensor

    def __init__(
        self,
        n_outputs: int,
        vectors: str = "",
        size: int = 64,
        filters: int = 96,
        dropout: float = 0.2,
        penalty: float = 2.0,
        min_texts: int = 2,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        if min(size, filters, min_texts) < 1:
            raise InvalidArgumentError(f"compact: size, filters and min_texts must be at least 1, got {size}, {filters}, {min_texts}")
        if not penalty >= 0:
            raise InvalidArgumentError(f"compact: penalty must be at least 0, got {penalty}")
        self.n_outputs, self.source, self.size, self.n_filters = n_outputs, vectors, size, filters
        self.dropout, self.penalty, self.min_texts, self.device = dropout, penalty, min_texts, device
        self.convolutions = nn.ModuleList(nn.Conv1d(size, filters, width, padding=width - 1) for width in WIDTHS)
        self.head = nn.Sequential(
            nn.Linear(2 * filters * len(WIDTHS), HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, n_outputs)
        )
        self.negation = nn.Parameter(torch.zeros(size))
        self.gain = nn.Parameter(torch.ones(n_outputs))  # of the wide part
        self.limit = nn.Parameter(torch.full((n_outputs,), LIMIT))
        self._take(FeatureIndex((), dict.fromkeys(BLOCKS, ()), {b: np.zeros(0, np.float32) for b in BLOCKS}, dict.fromkeys(BLOCKS, 0.0)))

    def _take(self, index: FeatureIndex) -> None:
        self.index = index
        self.vectors = nn.Embedding(UNKNOWN + 1 + len(index.words), self.size)
        self.register_buffer("linear", torch.zeros(index.n_features, self.n_outputs))
        self.register_buffer("middle", torch.zeros(self.n_outputs))
        self._model: CompactModel | None = None
        self.to(self.device)

    def settings(self) -> dict[str, Any]:
        """Return everything but outputs and device; the source of the first vectors is no part of the finished model."""
        return {
            "size": self.size,
            "filters": self.n_filters,
            "dropout": self.dropout,
            "penalty": self.penalty,
            "min_texts": self.min_texts,
        }

    def begin(self, texts: Sequence[str], worths: NDArray[np.float64] | None = None) -> Prepared:
        """Choose words and features on the training texts, unless that was done before, and solve the wide part; return the texts prepared."""
        if not self.index.words:
            if self.source:
                self._take_vectors(texts)
            else:
                self._take(FeatureIndex.of(texts, (), self.min_texts))
        prepared = self.prepare(texts)
        return prepared if worths is None else self._solve(texts, prepared, worths)

    def _solve(self, texts: Sequence[str], prepared: Prepared, worths: NDArray[np.float64]) -> Prepared:
        """Fit the wide part to what the judgements say; return the texts with what it says of each when fitted to others."""
        from scipy.sparse import csr_array

        ends = np.cumsum([0, *(len(entry.features) for entry in prepared)])
        values, features = (np.concatenate([getattr(entry, name) for entry in prepared]) for name in ("values", "features"))
        rows = csr_array((values.astype(np.float64), features, ends), shape=(len(prepared), self.index.n_features))
        targets = worths - worths.mean(0)
        targets = targets / np.where(targets.std(0) > 0, targets.std(0), 1.0)
        blocks = [len(self.index.features[block]) for block in BLOCKS]
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        missing = ((0, 0), (0, self.n_outputs - targets.shape[1]))  # outputs that no judgement speaks of
        weights, intercepts = scaled_ridge.solve(rows, targets, self.penalty, blocks)
        with torch.no_grad():
            self.linear.copy_(torch.from_numpy(np.pad(weights, missing)))
            self.middle.copy_(torch.from_numpy(np.pad(intercepts, missing[1])))
        left_out = scaled_ridge.cross_fitted(rows, targets, self.penalty, blocks, rng, texts)
        wide = np.pad(left_out, missing).astype(np.float32)
        return [entry._replace(wide=own) for entry, own in zip(prepared, wide, strict=True)]

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Return words and features of each text."""
        return self.index.read(texts)

    def length(self, entry: TextInput) -> int:
        """Return the number of words."""
        return len(entry.words)

    def forward(self, prepared: Prepared) -> Tensor:
        """Return the outputs, (n, n_outputs): in training with gradients, else by `CompactModel`."""
        if not self.training and not torch.is_grad_enabled():
            return self._scores(prepared)
        device = self.vectors.weight.device
        rows, negated, lengths = _padded(prepared, device)
        places = torch.arange(rows.shape[1], device=device)[None]
        inside = places < lengths[:, None]
        if self.training:
            rows = rows.masked_fill(torch.rand(rows.shape, device=device) < WORD_DROPOUT, UNKNOWN)
        read = self.vectors(rows) + negated[..., None] * self.negation
        read = functional.dropout(read * inside[..., None], VECTOR_DROPOUT, self.training).transpose(1, 2)  # (n, size, L)
        pooled = []
        for width, convolution in zip(WIDTHS, self.convolutions, strict=True):
            windows = functional.relu(convolution(read))  # (n, filters, L + width - 1)
            counted = lengths + width - 1
            touched = (torch.arange(windows.shape[2], device=device)[None] < counted[:, None])[:, None]
            windows = windows * touched  # never negative, so 0 wins no maximum
            pooled += [windows.amax(2), windows.sum(2) / counted[:, None]]
        features = functional.dropout(torch.cat(pooled, dim=1), self.dropout, self.training)
        deep = self.head(features)
        raw = deep + self.gain * self._wide(prepared, device)
        if self.training:
            raw = torch.where(torch.rand(len(raw), 1, device=device) < ALONE, 2 * deep, raw)
        return self.limit * torch.tanh(raw / self.limit)

    def _wide(self, prepared: Prepared, device: torch.device) -> Tensor:
        """Return what the wide part says of each text, (n, n_outputs): of training texts, when it was fitted without them."""
        if all(entry.wide is not None for entry in prepared):
            return torch.from_numpy(np.stack([entry.wide for entry in prepared])).to(device, self.linear.dtype)
        features = torch.from_numpy(np.concatenate([entry.features for entry in prepared])).to(device)
        values = torch.from_numpy(np.concatenate([entry.values for entry in prepared])).to(device)
        owner = torch.from_numpy(np.repeat(np.arange(len(prepared)), [len(entry.features) for entry in prepared])).to(device)
        return self.middle.expand(len(prepared), -1).index_add(0, owner, self.linear[features] * values[:, None])

    def _scores(self, prepared: Prepared) -> Tensor:
        if self._model is None:
            self._model = CompactModel({name: value.numpy() for name, value in _full(self.state()).items()})
        return torch.from_numpy(self._model.outputs(prepared))

    def train(self, mode: bool = True) -> "Compact":
        """Switch to training (the weights are about to change) or scoring."""
        self._model = None if mode else self._model
        super().train(mode)
        return self

    def state(self) -> dict[str, Tensor]:
        """Return the weights rounded for keeping: vectors to one byte each number, the rest to float16; and the features' idf."""
        kept = super().state()
        vectors = kept.pop("vectors.weight")
        scale = vectors.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
        small = {name: value.half() for name, value in kept.items()}
        small |= {"vectors.int8": (vectors / scale).round().to(torch.int8), "vectors.scale": scale.float()}
        return small | {f"idf.{block}": torch.from_numpy(self.index.idf[block]) for block in BLOCKS}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights."""
        self.load_state_dict({name: value.to(self.device) for name, value in _full(state).items()})
        self._model = None

    def save_assets(self, folder: Path) -> None:
        """Write words and features."""
        write_text(folder / FILE, self.index.described() + "\n")

    @classmethod
    def load(cls, folder: Path, n_outputs: int, settings: Mapping[str, Any], device: str) -> "Compact":
        """Return the scorer with the words and features of a folder."""
        from safetensors.numpy import load_file

        made = cls(n_outputs, device=device, **settings)
        stored = load_file(folder / "weights.safetensors")
        made._take(FeatureIndex.load(folder, {block: stored[f"scorer.idf.{block}"] for block in BLOCKS}))
        return made

    def _take_vectors(self, texts: Sequence[str]) -> None:
        """Begin with the vectors that a fitted model computes for each word alone."""
        from textgym.reward_modeling.models.fitted_reward import FittedReward

        source = FittedReward(self.source, self.device).scorer
        self._take(FeatureIndex.of(texts, source.words(), self.min_texts))
        found = []
        with torch.no_grad():
            for start in range(0, len(self.index.words), WORDS_AT_ONCE):
                found.append(source.embed(source.prepare(self.index.words[start : start + WORDS_AT_ONCE])).float())
        vectors = torch.cat(found)
        vectors = vectors - vectors.mean(0)
        if vectors.shape[1] < self.size:
            raise InvalidArgumentError(f"compact: size is {self.size}, but the vectors of {self.source!r} have {vectors.shape[1]} numbers")
        _, axes = torch.linalg.eigh(vectors.T @ vectors)  # ascending
        reduced = vectors @ axes[:, -self.size :].flip(1)
        with torch.no_grad():
            self.vectors.weight.zero_()
            self.vectors.weight[UNKNOWN + 1 :] = reduced / reduced.std()


def _full(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return kept weights as float32, without what belongs to the features."""
    full = {n: v.float() for n, v in state.items() if not n.startswith(("vectors.", "idf."))}
    return full | {"vectors.weight": state["vectors.int8"].float() * state["vectors.scale"]}


def _padded(prepared: Prepared, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows and marks of the words, (n, L), and the texts' lengths, (n,)."""
    lengths = np.array([len(entry.words) for entry in prepared])
    rows = np.full((len(prepared), lengths.max()), UNKNOWN, np.int64)
    negated = np.zeros(rows.shape, np.float32)
    for i, entry in enumerate(prepared):
        rows[i, : lengths[i]], negated[i, : lengths[i]] = entry.words, entry.negated
    return torch.from_numpy(rows).to(device), torch.from_numpy(negated).to(device), torch.from_numpy(lengths).to(device)
