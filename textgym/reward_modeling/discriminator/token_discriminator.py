"""TokenDiscriminator: the network that tells, token by token, an expert's text from a policy's."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalised

from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import MicroBatch, micro_batches
from textgym.lm.language_model import LanguageModel
from textgym.policies.generation import GeneratedText

Trunk: TypeAlias = Literal["trained", "frozen"]


class TokenDiscriminator(nn.Module):
    """Log-odds log(D / (1 − D)) that an expert, not the policy, chose a token after its prefix, read off a language model's hidden state.

    Beside the tokens there is one absorbing state, in which a text stays from its end to the horizon; its log-odds are one number.

    Args:
        lm: A language model of its own, which it may change. Its hidden state after prefix and token is what is judged.
        trunk: "trained": the language model learns, too; "frozen": the perceptron on top alone.
        width: Of the perceptron's hidden layer.
        spectral_norm: Keep the perceptron's layers at a Lipschitz constant of 1 (Miyato et al. 2018, arXiv:1802.05957).

    Attributes:
        absorbing: Log-odds of the absorbing state, a scalar.
    """

    def __init__(self, lm: LanguageModel, trunk: Trunk = "trained", width: int = 64, spectral_norm: bool = False) -> None:
        super().__init__()
        if trunk not in ("trained", "frozen"):
            raise InvalidArgumentError(f'the trunk of a discriminator must be "trained" or "frozen", got {trunk!r}')
        if width < 1:
            raise InvalidArgumentError(f"the width of a discriminator must be at least 1, got {width}")
        self.lm = lm.requires_grad_(trunk == "trained")
        first, last = nn.Linear(lm.hidden_size, width), nn.Linear(width, 1)
        if spectral_norm:
            first, last = normalised(first), normalised(last)
        else:
            nn.init.zeros_(last.weight)  # at first it has no opinion: D = 1/2
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(first, nn.GELU(approximate="tanh"), last)
        self.absorbing = nn.Parameter(torch.zeros(()))
        self.to(lm.output[0].weight.device)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.absorbing.device

    def judge(self, hidden: Tensor) -> Tensor:
        """Return the log-odds, (T,) float32, of hidden states after the tokens, (T, hidden)."""
        judged: Tensor = self.head(hidden.float()).squeeze(-1)
        return judged

    def hidden_states(self, texts: Sequence[GeneratedText], batch_size: int) -> Iterator[tuple[MicroBatch, Tensor]]:
        """Yield texts in parts, with the hidden state after each of their tokens, (T, hidden); gradients as the trunk learns.

        Args:
            texts: Whole texts.
            batch_size: Tokens per pass.
        """
        # The state that chose token t + 1 is the one after token t: a text moved by one place yields the states after its tokens.
        moved = [
            replace(t, prompt_ids=np.append(t.prompt_ids, t.action_ids[:1]), action_ids=np.append(t.action_ids[1:], t.action_ids[-1:]))
            for t in texts
        ]
        for batch in micro_batches(moved, batch_size, self.device):
            yield batch, self.lm.packed_hidden(batch.packed)

    @torch.no_grad()
    def log_odds(self, texts: Sequence[GeneratedText], batch_size: int = 1024) -> list[NDArray[np.float32]]:
        """Return the log-odds of every token, per text (tokens of it,)."""
        if not texts:
            return []
        was_training = self.training
        self.eval()  # spectral norms are not moved
        flat = np.concatenate([self.judge(hidden).cpu().numpy() for _, hidden in self.hidden_states(texts, batch_size)])
        self.train(was_training)
        return np.split(flat, np.cumsum([len(t.action_ids) for t in texts])[:-1])
