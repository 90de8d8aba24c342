"""Discrete Soft Actor-Critic: a language model as actor, twin critics over the vocabulary, a temperature that keeps its distance."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import MicroBatch, micro_batches
from textgym.learning.q_agent import QAgent
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.generation import GeneratedText
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class Critic(nn.Module):
    """Q(s, a) = v(f) + ⟨W f, e_a⟩ with features f = GELU(W' LayerNorm(h)) of the language model's hidden state h, e_a the token's embedding.

    The embeddings are those of the language model's output layer at the start, of unit size and fixed: what is learnt about a token is learnt
    about those like it, of thousands of which most are never tried. At first every Q is 0.

    Args:
        embeddings: (vocab, hidden) float32, shared by the critics.
    """

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        size = embeddings.shape[1]
        self.features = nn.Sequential(nn.LayerNorm(size, elementwise_affine=False), nn.Linear(size, size), nn.GELU())
        self.value, self.token = nn.Linear(size, 1), nn.Linear(size, size)
        for layer in (self.value, self.token):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.embeddings: Tensor
        self.register_buffer("embeddings", embeddings)  # saved: a resumed run begins with other weights than those they were taken from

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return v(f), (T, 1), and W f, (T, hidden): all that Q of any token needs."""
        f = self.features(hidden)
        return self.value(f), self.token(f)

    def of_all(self, value: Tensor, direction: Tensor) -> Tensor:
        """Return Q of every token, (T, vocab)."""
        return torch.addmm(value, direction, self.embeddings.T)

    def of(self, value: Tensor, direction: Tensor, tokens: Tensor) -> Tensor:
        """Return Q of one token per state, (T,), without the greater tensor."""
        return value.squeeze(-1) + (direction * self.embeddings[tokens]).sum(-1)


class ActorCriticPolicy(CausalLMPolicy):
    """A language model with critics on its hidden states, as named submodules, so that a copy of it is a whole target network."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        embeddings = self.lm.output[0].weight.detach().float()
        embeddings = embeddings / embeddings.square().mean(1, keepdim=True).sqrt().clamp_min(1e-8) / math.sqrt(embeddings.shape[1])
        self.critics = nn.ModuleList([Critic(embeddings), Critic(embeddings)])

    def least_q(self, read: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return min_i Q_i of every token, (T, vocab), from what each critic returned."""
        first, second = (critic.of_all(*found) for critic, found in zip(self.critics, read, strict=True))  # type: ignore[operator]
        return torch.minimum(first, second)

    def read(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what each critic says of hidden states (T, hidden)."""
        return [critic(hidden) for critic in self.critics]


class SACAgent(QAgent):
    """Discrete Soft Actor-Critic (Christodoulou 2019, arXiv:1910.07207; twin critics: Fujimoto et al. 2018, arXiv:1802.09477).

    The actor π is the language model, so that the first policy is the language model itself. With Q_i the twin critics, Q̄ the lesser of
    their target copies, ρ = log(π/π_ref) (without a reference model log π), and all expectations over the vocabulary in closed form:

        V̄(s) = Σ_a π(a|s) (Q̄(s, a) − α ρ)                 critics: ½ (Q_i(s_t, a_t) − y_t)², y_t = r_t + γ V̄(s_{t+1}) mixed along the text by λ
        actor: Σ_a π(a|s) (α ρ − min_i Q_i(s, a))          temperature: log α ← log α + alpha_lr (E_π ρ − target)

    The temperature steers to a KL from the reference model, not to an entropy as in the paper: the entropy of all tokens is that of noise,
    and the distance from the language model is what keeps text readable. Without a reference model E_π ρ is −entropy, as in the paper.

    The critics are small networks on the policy's hidden states: copies of the language model would cost two more passes forward and back
    per update, and a trained model's states tell what the text is about. They do not change those states, unless the model has no weights
    yet (`value_gradient`).

    Args:
        task: As for `textgym.make_agent`.
        alpha: α at the start, reward units per nat. It takes the place of `kl_coef`.
        alpha_lr: Step of log α, per nat off the target; 0 keeps α.
        target_kl: Nats per token from the reference model that α steers to.
        target_entropy: Nats per token that α steers to without a reference model.
        value_lr_scale: Learning rate of the critics, in learning rates.
        **settings: Those of `textgym.learning.q_agent.QAgent` (`path_lambda`, `replay_size`, `updates`, `tau`, ...), `TextAgent`, `Agent`.
    """

    refuses: ClassVar[Mapping[str, str]] = {"kl_coef": "alpha is the coefficient of the KL"}
    search_space: ClassVar[SearchSpace] = {"alpha": Range(0.03, 0.5, log=True), "target_kl": Range(0.1, 1.0, log=True)}
    policy_class = ActorCriticPolicy
    policy: ActorCriticPolicy
    target: ActorCriticPolicy

    def __init__(
        self,
        task: str | Task,
        alpha: float = 0.1,
        alpha_lr: float = 0.01,
        target_kl: float = 0.5,
        target_entropy: float = 0.05,
        value_lr_scale: float = 3.0,
        **settings: Any,
    ) -> None:
        if not alpha > 0:
            raise InvalidArgumentError(f"alpha must be greater than 0, got {alpha}")
        for name, number in (("alpha_lr", alpha_lr), ("target_kl", target_kl), ("target_entropy", target_entropy)):
            if not number >= 0:
                raise InvalidArgumentError(f"{name} must be at least 0, got {number}")
        super().__init__(task, value_lr_scale=value_lr_scale, **settings)
        self.log_alpha, self.alpha_lr = math.log(alpha), alpha_lr
        self.target_distance = -target_entropy if self.reference_model is None else target_kl
        self.training_modules["critics"] = self.policy.critics

    def iterate(self) -> int:
        """Write texts, keep them, take steps on replayed ones; log α."""
        self.logger.record("train/ent_coef", math.exp(self.log_alpha))
        return super().iterate()

    def losses(self, texts: Sequence[GeneratedText]) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the losses of critics and actor, which share no weights unless `value_gradient` says so, in parts; then move α."""
        n_tokens = sum(len(t.action_ids) for t in texts)
        alpha, distance = math.exp(self.log_alpha), 0.0
        for batch in micro_batches(texts, self.batch_size, self.device):
            hidden, logits = self.hidden_and_logits(self.policy, batch)
            log_probs = logits.log_softmax(-1)  # (T, vocab), as all that follows
            probs, read = log_probs.exp(), self.policy.read(hidden)
            with torch.no_grad():
                log_ratio = log_probs - self._reference_log_probs(batch)
                distances = (probs * log_ratio).sum(-1)
                distance += distances.sum().item() / n_tokens
                targets = self._targets(batch, texts, probs, alpha * distances)
                worth = log_ratio.mul_(alpha).sub_(self.policy.least_q(read))
            q = [critic.of(*found, batch.packed.actions) for critic, found in zip(self.policy.critics, read, strict=True)]  # type: ignore[operator]
            critic_loss = 0.5 * torch.stack([(each - targets).square().sum() for each in q]).sum() / n_tokens
            # the derivative of α Σ π ρ by π is α (ρ + 1), and Σ ∂π is 0: α ρ may be held constant
            actor_loss = (probs * worth).sum() / n_tokens
            yield (
                critic_loss + actor_loss,
                {
                    "actor_loss": actor_loss.item(),
                    "critic_loss": critic_loss.item(),
                    "q_mean": torch.stack(q).mean(0).sum().item() / n_tokens,
                    "target_mean": targets.sum().item() / n_tokens,
                    "distance": distances.sum().item() / n_tokens,
                },
            )
        self.log_alpha += self.alpha_lr * (distance - self.target_distance)

    def _targets(self, batch: MicroBatch, texts: Sequence[GeneratedText], probs: Tensor, penalties: Tensor) -> Tensor:
        """Return y, (T,), from π, (T, vocab), and α E_π ρ, (T,)."""
        q = self.target.least_q(self.target.read(self.target.lm.packed_hidden(batch.packed).float()))
        values = (probs * q).sum(-1) - penalties
        return self.targets(batch, texts, values, q.gather(-1, batch.packed.actions[:, None]).squeeze(-1) - values)

    def _reference_log_probs(self, batch: MicroBatch) -> Tensor | float:
        """Return log π_ref of every token, (T, vocab), 0 without a reference model."""
        if self.reference is None:
            return 0.0
        return self.reference.log_probs_of_all(batch.packed, self.policy.rule, self.policy.allowed)

    def state(self) -> dict[str, Any]:
        """Return the state with log α."""
        return {**super().state(), "log_alpha": self.log_alpha}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.log_alpha = float(state["log_alpha"])
