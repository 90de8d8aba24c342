"""DiscriminatorLearner: steps on a discriminator by an expert's texts against a policy's, offline or beside an agent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.imitation.token_discriminator import TokenDiscriminator, Trunk
from textgym.learning.optimisation import Optimisation
from textgym.lm.language_model import LanguageModel
from textgym.policies.generation import GeneratedText
from textgym.reward_modeling import losses
from textgym.reward_modeling.reward_forms import Form, absorbing_return, check_form, reward_of

Penalty: TypeAlias = Literal["", "r1", "interpolated"]
Figures: TypeAlias = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """How a discriminator is made and fitted; what it pays is said where it is used.

    Attributes:
        trunk: "trained": a copy of the language model learns with it; "frozen": only the layers on its hidden states learn (faster, and
            slower to see through the policy).
        width: Of these layers.
        spectral_norm: Of these layers; bounds how steep the verdicts are.
        learning_rate: Of Adam.
        absorbing_learning_rate: Of the absorbing state's log-odds: one number that has to keep up with all lengths.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are scaled down to this L2 norm.
        label_smoothing: Targets are 1 − ε for the expert and ε for the policy (Salimans et al. 2016, arXiv:1606.03498): verdicts stay finite.
        penalty: On the gradient of the log-odds by hidden state and token vector. "r1": its square on the expert's tokens (Mescheder et al.
            2018, arXiv:1801.04406); "interpolated": the squared distance of its norm from 1, on points between the expert's and the
            policy's (Gulrajani et al. 2017, arXiv:1704.00028); "" for none.
        penalty_coef: Its weight: γ of γ/2 · E[‖∇‖²], or λ of λ · E[(‖∇‖ − 1)²].
        absorbing: Whether a text stays in an absorbing state from its end to the horizon (Kostrikov et al. 2019, arXiv:1809.02925).
    """

    trunk: Trunk = "frozen"
    width: int = 64
    spectral_norm: bool = False
    learning_rate: float = 1e-3
    absorbing_learning_rate: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    penalty: Penalty = ""
    penalty_coef: float = 1.0
    absorbing: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise InvalidArgumentError(f"label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")
        if self.penalty not in ("", "r1", "interpolated"):
            raise InvalidArgumentError(f'penalty must be "", "r1" or "interpolated", got {self.penalty!r}')
        if not self.penalty_coef >= 0:
            raise InvalidArgumentError(f"penalty_coef must be at least 0, got {self.penalty_coef}")
        if not self.learning_rate > 0 or not self.absorbing_learning_rate > 0:
            raise InvalidArgumentError(
                f"a discriminator's learning rates must be above 0, got {self.learning_rate} and {self.absorbing_learning_rate}"
            )

    def network(self, lm: LanguageModel) -> TokenDiscriminator:
        """Return a discriminator that has no opinion yet, on a language model of its own."""
        scale = self.absorbing_learning_rate / self.learning_rate
        return TokenDiscriminator(lm, self.trunk, self.width, self.spectral_norm, scale)


def absorbing_steps(texts: Sequence[GeneratedText], horizon: int) -> NDArray[np.int64]:
    """Return how many of `horizon` steps are left after each text's end, (n,)."""
    return np.array([max(0, horizon - len(t.action_ids)) for t in texts], np.int64)


class DiscriminatorLearner:
    """A discriminator with its optimizer.

    Args:
        network: Learns.
        settings: How.
        horizon: Tokens that a text may have; with absorbing states every text has so many steps.
        batch_size: Tokens per forward pass.

    Attributes:
        optimisation: Its steps; the optimizer inside belongs to a saved state.
    """

    def __init__(self, network: TokenDiscriminator, settings: DiscriminatorSettings, horizon: int, batch_size: int = 1024) -> None:
        self.network, self.settings, self.horizon, self.batch_size = network, settings, horizon, batch_size
        self.optimisation = Optimisation(network, settings.learning_rate, settings.max_grad_norm, weight_decay=settings.weight_decay)

    def step(self, expert: Sequence[GeneratedText], policy: Sequence[GeneratedText], rng: np.random.Generator) -> Figures:
        """Take one step; return "loss" (nats), "accuracy" over tokens, the two sides weighing the same, and the gradient's norm."""
        return self.optimisation.step(self.losses(expert, policy, rng))

    def losses(
        self, expert: Sequence[GeneratedText], policy: Sequence[GeneratedText], rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Figures]]:
        """Yield the parts of −E_expert[log D] − E_policy[log(1 − D)], means over the steps of each side, and of the penalty.

        Args:
            expert, policy: Whole texts.
            rng: Draws where between the sides the "interpolated" penalty looks.
        """
        kept: dict[bool, list[Tensor]] = {True: [], False: []}
        for is_expert, texts in ((True, expert), (False, policy)):
            n_tokens = sum(len(t.action_ids) for t in texts)
            n_absorbing = int(absorbing_steps(texts, self.horizon).sum()) if self.settings.absorbing else 0
            for inputs in self.network.read(texts, self.batch_size):
                kept[is_expert].append(inputs.detach())
                log_odds = self.network.judge(inputs)
                loss = self._cross_entropy(log_odds, is_expert).sum() / (n_tokens + n_absorbing)
                right = float(((log_odds > 0) == is_expert).sum()) / (2 * n_tokens)
                yield loss, {"loss": loss.item(), "accuracy": right}
            if n_absorbing:
                loss = self._cross_entropy(self.network.absorbing, is_expert) * n_absorbing / (n_tokens + n_absorbing)
                yield loss, {"loss": loss.item()}
        if self.settings.penalty:
            penalty = self._penalty(torch.cat(kept[True]), torch.cat(kept[False]), rng)
            yield penalty, {"gradient_penalty": penalty.item()}

    def _cross_entropy(self, log_odds: Tensor, is_expert: bool) -> Tensor:
        return losses.expert_or_policy(log_odds, is_expert, self.settings.label_smoothing)

    def _penalty(self, expert: Tensor, policy: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the weighted penalty; the inputs (T, 2 hidden) come without gradients."""
        points = expert
        if self.settings.penalty == "interpolated":
            n = min(len(expert), len(policy))
            share = torch.from_numpy(rng.random((n, 1), dtype=np.float32)).to(expert)
            points = share * expert[rng.permutation(len(expert))[:n]] + (1 - share) * policy[rng.permutation(len(policy))[:n]]
        points = points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.network.judge(points).sum(), points, create_graph=True)
        squares = gradient.square().sum(-1)
        if self.settings.penalty == "r1":
            return self.settings.penalty_coef / 2 * squares.mean()
        return self.settings.penalty_coef * ((squares + 1e-12).sqrt() - 1).square().mean()

    def rewards(self, texts: Sequence[GeneratedText], form: Form, clip: float = 10.0, gamma: float = 1.0) -> list[NDArray[np.float64]]:
        """Return what the discriminator pays for each token, per text (tokens of it,); the last token is paid the absorbing steps, too."""
        return token_rewards(self.network, texts, form, clip, self.horizon if self.settings.absorbing else 0, gamma, self.batch_size)


def token_rewards(
    network: TokenDiscriminator,
    texts: Sequence[GeneratedText],
    form: Form,
    clip: float,
    horizon: int,
    gamma: float = 1.0,
    batch_size: int = 1024,
) -> list[NDArray[np.float64]]:
    """Return the rewards of each token, per text (tokens of it,), absorbing steps up to `horizon` paid to the last one.

    Args:
        network: Judges.
        texts: Whole texts.
        form, clip: As for `reward_of`.
        horizon: Steps of every text; 0 without absorbing states.
        gamma: Discount of the absorbing steps.
        batch_size: Tokens per pass.
    """
    check_form(form)
    found = [reward_of(torch.from_numpy(odds), form, clip).double().numpy() for odds in network.log_odds(texts, batch_size)]
    after = float(reward_of(network.absorbing.detach().cpu(), form, clip))
    for rewards, n_steps in zip(found, absorbing_steps(texts, horizon), strict=True):
        rewards[-1] += absorbing_return(after, int(n_steps), gamma)
    return found
