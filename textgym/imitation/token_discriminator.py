"""TokenDiscriminator: the network that tells, token by token, an expert's text from a policy's."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm as normalised

from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import micro_batches, split_by_text
from textgym.lm.language_model import LanguageModel
from textgym.policies.generation import GeneratedText

Trunk: TypeAlias = Literal["trained", "frozen"]


class TokenDiscriminator(nn.Module):
    """Log-odds log(D / (1 − D)) that an expert, not the policy, chose token a after prefix s: q(h(s)) · k(e(a)).

    h(s) is a language model's hidden state at the prefix's end and e(a) its vector of the token; q is a perceptron, k is linear with a
    constant. Where both sides have the same prefixes, the best D has the log-odds log π_expert(a|s) − log π(a|s): a product of prefix and
    token, like a language model's own output. Beside the tokens there is one absorbing state, in which a text stays from its end to the
    horizon; its log-odds are one number.

    Args:
        lm: A language model of its own, which it may change.
        trunk: "trained": the language model learns, too; "frozen": q and k alone.
        width: Of q's hidden layer, and of both vectors.
        spectral_norm: Keep the layers of q and k at a Lipschitz constant of 1 (Miyato et al. 2018, arXiv:1802.05957).
        absorbing_scale: Of the absorbing state's log-odds to the parameter behind them, that is, of their learning rates.
    """

    def __init__(
        self, lm: LanguageModel, trunk: Trunk = "frozen", width: int = 64, spectral_norm: bool = False, absorbing_scale: float = 50.0
    ) -> None:
        super().__init__()
        if trunk not in ("trained", "frozen"):
            raise InvalidArgumentError(f'the trunk of a discriminator must be "trained" or "frozen", got {trunk!r}')
        if width < 1:
            raise InvalidArgumentError(f"the width of a discriminator must be at least 1, got {width}")
        self.lm = lm.requires_grad_(trunk == "trained")
        size = lm.hidden_size
        first, last, key = nn.Linear(size, width), nn.Linear(width, width), nn.Linear(size, width)
        nn.init.zeros_(last.bias)
        if spectral_norm:
            for layer in (first, last, key):
                normalised(layer)
        else:
            nn.init.zeros_(last.weight)  # at first it has no opinion: D = 1/2
        self.query = nn.Sequential(first, nn.GELU(approximate="tanh"), last)
        self.key = key
        self.end, self.absorbing_scale = nn.Parameter(torch.zeros(())), absorbing_scale
        self.to(lm.output[0].weight.device)

    @property
    def absorbing(self) -> Tensor:
        """Log-odds of the absorbing state, a scalar."""
        return self.absorbing_scale * self.end

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.end.device

    def inputs(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return what is judged, (T, 2 hidden): hidden states (T, hidden) of the prefixes, vectors of the tokens (T,), of unit variance."""
        vectors = self.lm.trunk[0].get_input_embeddings()(tokens)
        return torch.cat([functional.layer_norm(side.float(), side.shape[-1:]) for side in (hidden, vectors)], dim=-1)

    def judge(self, inputs: Tensor) -> Tensor:
        """Return the log-odds, (T,) float32, of `inputs` (T, 2 hidden)."""
        hidden, vectors = inputs.chunk(2, dim=-1)
        judged: Tensor = (self.query(hidden) * self.key(vectors)).sum(-1)
        return judged

    def read(self, texts: Sequence[GeneratedText], batch_size: int) -> Iterator[Tensor]:
        """Yield the `inputs` of all tokens of texts in parts, (T, 2 hidden), in order; with gradients as the trunk learns.

        Args:
            texts: Whole texts.
            batch_size: Tokens per pass.
        """
        for batch in micro_batches(texts, batch_size, self.device):
            yield self.inputs(self.lm.packed_hidden(batch.packed), batch.packed.actions)

    @torch.no_grad()
    def log_odds(self, texts: Sequence[GeneratedText], batch_size: int = 1024) -> list[NDArray[np.float32]]:
        """Return the log-odds of every token, per text (tokens of it,)."""
        if not texts:
            return []
        was_training = self.training
        self.eval()  # spectral norms are not moved
        flat = np.concatenate([self.judge(inputs).cpu().numpy() for inputs in self.read(texts, batch_size)])
        self.train(was_training)
        return split_by_text(flat, texts)
