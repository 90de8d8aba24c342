"""QAgent: the loop of agents that learn action values from replayed texts, with a target network."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import MicroBatch
from textgym.learning.path_targets import batch_targets
from textgym.learning.replay import TokenReplay
from textgym.learning.text_agent import TextAgent
from textgym.lm.source import has_weights
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.generation import GeneratedText
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class QAgent(TextAgent):
    """Writes texts, keeps them, and regresses Q of replayed tokens on targets of a lagging copy. Subclasses say what Q is.

    The rewards kept are r + `kl_coef` log π_ref(a|s) (KL control; Jaques et al. 2017, arXiv:1611.02796): the tokens' own part of the KL, to
    which a soft Q adds the entropy, while the KL of a greedy policy is nothing else.

    V is a linear head on the language model, of which the errors are larger than those of the advantages by far (the scale of the reward,
    against a coefficient times a log-probability). Its gradient would drown theirs in the shared weights - then nothing is learnt about
    tokens -, so little or none of it reaches them, and the head, left alone, learns at a higher rate.

    Args:
        task: As for `Agent`.
        gamma: Discount; 1 because the reward comes at the end of a short text.
        path_lambda: λ of the targets, 0 (one step) to 1 (the whole text); see `textgym.learning.path_targets`.
        replay_size: Tokens kept, prompts included.
        updates: Optimizer steps per iteration, each on as many replayed texts as an iteration writes.
        tau: Share by which the target network moves to the policy after each step; 1 copies it.
        value_gradient: Share of the values' gradient that reaches the language model, 0 to 1; by default 0, or 1 where that model has no
            weights yet and has to find out what the reward depends on.
        value_lr_scale: Learning rate of the value head, in learning rates.
        **settings: Those of `TextAgent` and `Agent`.
    """

    replay: TokenReplay
    search_space: ClassVar[SearchSpace] = {"path_lambda": Range(0.0, 1.0), "updates": Range(1, 4), "tau": Range(0.02, 1.0, log=True)}

    def __init__(
        self,
        task: str | Task,
        gamma: float = 1.0,
        path_lambda: float = 0.9,
        replay_size: int = 20_000,
        updates: int = 4,
        tau: float = 0.1,
        value_gradient: float | None = None,
        value_lr_scale: float = 10.0,
        **settings: Any,
    ) -> None:
        for name, share in (("gamma", gamma), ("path_lambda", path_lambda), ("tau", tau), ("value_gradient", value_gradient or 0)):
            if not 0 <= share <= 1:
                raise InvalidArgumentError(f"{name} must be from 0 to 1, got {share}")
        if updates < 1:
            raise InvalidArgumentError(f"updates must be at least 1, got {updates}")
        super().__init__(task, **settings)
        self.gamma, self.path_lambda, self.updates, self.tau = gamma, path_lambda, updates, tau
        self.value_gradient = float(not has_weights(self.model)) if value_gradient is None else value_gradient
        self.resolved["value_gradient"] = self.value_gradient
        heads = [p for name, p in self.policy.named_parameters() if not name.startswith("lm.")]
        self.optimisation.scale_learning_rate(heads, value_lr_scale)
        self.replay = TokenReplay(replay_size, longest=self.env.mdp.max_length)
        self.target = self.make_policy().requires_grad_(False)
        self.target.load_state_dict(self.policy.state_dict())
        self.training_modules["target"] = self.target

    @abstractmethod
    def losses(self, texts: Sequence[GeneratedText]) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the loss of replayed texts, a mean over tokens, in parts with their figures."""

    def rewards_to_keep(self, texts: Sequence[GeneratedText]) -> tuple[list[NDArray[np.float64]], float]:
        """Return per text (tokens of it,) r + `kl_coef` log π_ref, and the mean KL per token (k1, nats; nan without reference model)."""
        if self.reference is None:
            return [t.rewards for t in texts], float("nan")
        theirs = self.reference_log_probs(texts)
        kl = float(np.concatenate([t.log_probs - log_probs for t, log_probs in zip(texts, theirs, strict=True)]).mean())
        return [t.rewards + self.kl_coef * log_probs for t, log_probs in zip(texts, theirs, strict=True)], kl

    def iterate(self) -> int:
        """Write texts, keep them, take steps on replayed ones."""
        texts = self.write_groups()
        rewards, kl = self.rewards_to_keep(texts)
        self.log_texts(texts, kl)
        self.replay.add(texts, rewards)
        figures: dict[str, float] = {}
        for _ in range(self.updates if len(self.replay) else 0):
            replayed = self.replay.sample(len(texts), self.rng)
            figures = self.optimisation.step(self.losses(replayed), self.progress)
            self.move_target()
            self.n_tokens_trained += sum(len(t.action_ids) for t in replayed)
        self.log_update(figures)
        return sum(len(t.action_ids) for t in texts)

    # --- pieces of a loss ----------------------------------------------------------------------------------------------------------

    def hidden_and_logits(self, policy: CausalLMPolicy, batch: MicroBatch, top_k: bool = True) -> tuple[Tensor, Tensor]:
        """Return the hidden states (T, hidden) for heads of values, and the logits (T, vocab) under the sampling rule, of policy or target.

        Args:
            policy: Which of the two.
            batch: Texts with T tokens.
            top_k: False leaves tokens beyond the rule's top k theirs, for a Q of which they are a part.
        """
        hidden = policy.lm.packed_hidden(batch.packed)
        rule = policy.rule if top_k else replace(policy.rule, top_k=0)
        logits = rule.apply(policy.lm.logits(hidden), policy.allowed, chosen=batch.packed.actions)
        return torch.lerp(hidden.detach(), hidden, self.value_gradient).float(), logits

    def targets(self, batch: MicroBatch, texts: Sequence[GeneratedText], values: Tensor, advantages: Tensor) -> Tensor:
        """Return the targets of the chosen tokens' Q, (T,) float32, from V and A of the target network, (T,) each."""
        return batch_targets(batch, texts, values, advantages, self.gamma, self.path_lambda)

    @torch.no_grad()
    def move_target(self) -> None:
        """Move the target network towards the policy by `tau` (Polyak averaging)."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.policy.parameters()), self.tau)
