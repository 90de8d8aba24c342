"""ILQL: offline Q-learning on given texts that never asks for the value of a token the data do not have."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from textgym.errors import InvalidArgumentError
from textgym.learning.given_data_agent import GivenDataAgent
from textgym.learning.given_texts import OFFLINE, Rounds, given_texts
from textgym.learning.micro_batches import micro_batches
from textgym.learning.path_targets import batch_targets
from textgym.policies.advantage_shifted_policy import AdvantageShiftedPolicy
from textgym.policies.generation import GeneratedText
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


def expectile_loss(gaps: Tensor, tau: float) -> Tensor:
    """Return |τ − 1(u < 0)| u² of each gap u: least where the τ-expectile is 0 (Newey and Powell 1987)."""
    return torch.where(gaps < 0, 1 - tau, tau) * gaps.square()


class ILQLAgent(GivenDataAgent):
    """Implicit language Q-learning (Snell et al. 2022, arXiv:2206.11871) on texts with rewards that somebody else wrote.

    On the language model sit two Q heads, their lagging copies Q̂ (of which the lesser counts) and a V head. A token's loss is
    Σᵢ (Qᵢ(s, a) − y)² + |τ − 1(Q̂ < V)| (Q̂(s, a) − V(s))² + cql_coef Σᵢ (log Σ_b exp Qᵢ(s, b) − Qᵢ(s, a)) − bc_coef w log π_lm(a|s), a mean
    over tokens: Q learns y = r + γ V(s'), mixed along the text by λ; V the τ-expectile of Q̂ over the data's tokens, from their mean (½) to
    their best (1); the third term (Kumar et al. 2020, arXiv:2006.04779) holds down tokens the data lack; the last keeps the language
    model the data's writer, with w = exp(awac_coef (Q̂ − V)) (Nair et al. 2020, arXiv:2006.09359). Texts are written with
    log π_lm + β (Q̂ − V), so the first policy is the language model. Nothing is generated in learning; the budget counts the tokens read.

    Args:
        task: As for `textgym.make_agent`.
        data: As for `textgym.learning.given_texts.given_texts`: "offline", what the task ships, "references", a registered set, a file.
        beta: β, nats per unit of reward.
        tau: τ of the expectile.
        cql_coef: Weight of the conservative term.
        bc_coef: Weight of the language model's own loss.
        awac_coef: How much more of it good tokens get, per unit of reward; 0 for all the same.
        train_lm: False freezes the language model, so that only the heads learn.
        gamma: Discount.
        path_lambda: λ of the targets, 0 (one step, as in the paper) to 1 (the whole text); the fixed point is the same.
        polyak: Share by which the lagging copies move after each step.
        **settings: Those of `textgym.learning.text_agent.TextAgent` (`learning_rate`, ...) and `textgym.agent.Agent`.
    """

    refuses: ClassVar[Mapping[str, str]] = {"kl_coef": "beta says how far it leaves the language model"}
    search_space: ClassVar[SearchSpace] = {
        "beta": Range(1.0, 16.0, log=True),
        "tau": Range(0.5, 0.95),
        "bc_coef": Range(0.03, 1.0, log=True),
        "path_lambda": Range(0.0, 1.0),
    }
    policy_class = AdvantageShiftedPolicy
    policy: AdvantageShiftedPolicy

    def __init__(
        self,
        task: str | Task,
        data: str | os.PathLike[str] = OFFLINE,
        beta: float = 4.0,
        tau: float = 0.7,
        cql_coef: float = 0.0,
        bc_coef: float = 0.1,
        awac_coef: float = 0.0,
        train_lm: bool = True,
        gamma: float = 1.0,
        path_lambda: float = 0.9,
        polyak: float = 0.1,
        **settings: Any,
    ) -> None:
        for name, share in (("gamma", gamma), ("path_lambda", path_lambda), ("polyak", polyak)):
            if not 0 <= share <= 1:
                raise InvalidArgumentError(f"{name} must be from 0 to 1, got {share}")
        if not 0 < tau < 1:
            raise InvalidArgumentError(f"tau must be between 0 and 1, got {tau}")
        for name, weight in (("cql_coef", cql_coef), ("bc_coef", bc_coef), ("awac_coef", awac_coef)):
            if not weight >= 0:
                raise InvalidArgumentError(f"{name} must be at least 0, got {weight}")
        self.beta, self.train_lm = beta, train_lm
        super().__init__(task, **settings)
        self.tau, self.cql_coef, self.bc_coef, self.awac_coef = tau, cql_coef, bc_coef if self.train_lm else 0.0, awac_coef
        self.gamma, self.path_lambda, self.polyak = gamma, path_lambda, polyak
        self.texts = given_texts(self.env.mdp, data)
        self.rounds = Rounds(len(self.texts))
        self.policy.heads.start_at(float(np.mean([t.rewards.sum() for t in self.texts])))
        self.writing_modules["heads"] = self.policy.heads

    def policy_options(self) -> dict[str, Any]:
        """Return what the heads' policy wants to know."""
        return {"beta": self.beta, "train_lm": self.train_lm}

    def iterate(self) -> int:
        """Take one step on the next texts, and move the lagging copies."""
        texts = [self.texts[i] for i in self.rounds.deal(self.env.num_envs, self.rng)]
        self.log_update(self.optimisation.step(self.losses(texts), self.progress))
        self.policy.heads.move_target(self.polyak)
        read = sum(len(t.action_ids) for t in texts)
        self.n_tokens_trained += read
        return read

    def losses(self, texts: Sequence[GeneratedText]) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the parts of the loss, a mean over the tokens of all texts."""
        n_tokens = sum(len(t.action_ids) for t in texts)
        policy, heads = self.policy, self.policy.heads
        for batch in micro_batches(texts, self.batch_size, self.device):
            tokens, hidden = batch.packed.actions, policy.lm.packed_hidden(batch.packed)
            values, lagging = policy._values(hidden), heads.target_of(hidden, tokens)
            gaps = lagging.double() - values.detach().double()
            targets = batch_targets(batch, texts, values.detach(), gaps, self.gamma, self.path_lambda)
            losses = {"q_loss": values.new_zeros(()), "v_loss": expectile_loss(lagging - values, self.tau).sum() / n_tokens}
            for head in heads.q:
                if self.cql_coef:
                    of_all = head(hidden).masked_fill(~policy.allowed, -torch.inf)
                    q = of_all.gather(-1, tokens[:, None]).squeeze(-1)
                    held_down = self.cql_coef * (of_all.logsumexp(-1) - q).sum() / n_tokens
                    losses["cql_loss"] = losses.get("cql_loss", 0.0) + held_down
                else:
                    q = head.of(hidden, tokens)  # type: ignore[operator]
                losses["q_loss"] = losses["q_loss"] + (q - targets).square().sum() / n_tokens
            if self.bc_coef:
                logits = policy.rule.apply(policy.lm.logits(hidden), policy.allowed, chosen=tokens)
                worth = (self.awac_coef * (lagging - values.detach())).exp()
                losses["bc_loss"] = self.bc_coef * (worth * cross_entropy(logits, tokens, reduction="none")).sum() / n_tokens
            loss = torch.stack(list(losses.values())).sum()
            figures = {"q_mean": lagging, "v_mean": values, "target_mean": targets}
            yield (
                loss,
                {name: part.item() for name, part in {"loss": loss, **losses}.items()}
                | {name: numbers.sum().item() / n_tokens for name, numbers in figures.items()},
            )
