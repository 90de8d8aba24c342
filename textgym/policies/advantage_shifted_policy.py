"""AdvantageShiftedPolicy: a causal LM policy whose tokens are drawn from the language model, shifted by learned advantages."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from textgym.errors import InvalidArgumentError
from textgym.policies.causal_lm_policy import CausalLMPolicy

WIDTH = 2  # hidden units of a head per unit of the hidden state


class QHead(nn.Module):
    """One hidden layer from hidden states (..., hidden) to numbers (..., n), all equal at first.

    Args:
        hidden_size: Of the language model.
        n: Numbers: one per token for Q, 1 for V.
    """

    def __init__(self, hidden_size: int, n: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, WIDTH * hidden_size)
        self.output = nn.Linear(WIDTH * hidden_size, n)
        nn.init.zeros_(self.output.weight)  # so that the first policy is the language model
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the numbers of every token, (..., n)."""
        found: Tensor = self.output(self.inner(hidden.float()).relu())
        return found

    def of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the numbers of one token each, (T,), of hidden states (T, hidden), without those of all others."""
        inner = self.inner(hidden.float()).relu()
        found: Tensor = (inner * self.output.weight[tokens]).sum(-1) + self.output.bias[tokens]
        return found


class ValueHeads(nn.Module):
    """Two Q heads, their lagging copies, and a V head on one language model.

    Args:
        hidden_size, vocabulary_size: Of the language model.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__()
        self.q = nn.ModuleList(QHead(hidden_size, vocabulary_size) for _ in range(2))
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)
        self.v = QHead(hidden_size, 1)

    @torch.no_grad()
    def target_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the lesser Q̂ of one token each, (T,)."""
        first, second = (head.of(hidden, tokens) for head in self.target_q)  # type: ignore[operator]
        return torch.minimum(first, second)

    @torch.no_grad()
    def start_at(self, number: float) -> None:
        """Let every Q and V begin with a number, such as the mean return of the data: a token that these lack is then neither good nor bad."""
        for head in (*self.q, *self.target_q, self.v):
            head.output.bias.fill_(number)

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the lagging copies towards the heads by a share (Polyak averaging)."""
        for lagging, current in zip(self.target_q.parameters(), self.q.parameters(), strict=True):
            lagging.lerp_(current, share)


class AdvantageShiftedPolicy(CausalLMPolicy):
    """`CausalLMPolicy` that writes with log π(a|s) = log π_lm(a|s) + β (Q̂(s, a) − V(s)) + const, Q̂ the lesser of two lagging Q heads.

    V(s) is the same for every token, so the normalisation takes it out again. Temperature and top-k apply to the shifted logits. At first
    all Q are equal and the policy is the language model. The heads are in no Hugging Face folder: whoever loads that gets π_lm; an agent saves
    `heads` beside it.

    Args:
        *args: Those of `CausalLMPolicy`.
        beta: β, nats per unit of reward; 0 writes as the language model.
        train_lm: False freezes the language model, adapters included, and only the heads learn.
        **settings: Those of `CausalLMPolicy`.

    References:
        Snell et al. 2022, arXiv:2206.11871, section 4.2 (their π_β is our π_lm).
    """

    def __init__(self, *args: Any, beta: float = 4.0, train_lm: bool = True, **settings: Any) -> None:
        if not beta >= 0:
            raise InvalidArgumentError(f"beta must be at least 0, got {beta}")
        super().__init__(*args, **settings)
        self.settings |= {"beta": beta, "train_lm": train_lm}
        self.beta = beta
        if not train_lm:
            self.lm.requires_grad_(False)  # and what is frozen already, beside adapters, stays so
        self.heads = ValueHeads(self.lm.hidden_size, self.lm.vocabulary_size)
        self.value_head.requires_grad_(False)  # V has a head of its own
        (group,) = self.optimizer.param_groups
        learning = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(learning, lr=group["lr"], **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = super()._logits(hidden)
        if self.beta == 0:
            return logits
        with torch.no_grad():
            first, second = (head(hidden) for head in self.heads.target_q)
        return logits + self.beta * torch.minimum(first, second)

    def _values(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.heads.v(hidden.detach() if self.detach_value else hidden).squeeze(-1)
        return values
