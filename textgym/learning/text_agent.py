"""TextAgent: the loop of every agent that learns from whole texts - write or read some, score them, take optimizer steps."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.agent import Agent
from textgym.errors import InvalidArgumentError, RewardError
from textgym.learning.first_pass import n_looked_at, sampling_difference
from textgym.learning.micro_batches import micro_batches, split_by_text
from textgym.learning.optimisation import Optimisation, Schedule
from textgym.learning.replay import TokenReplay
from textgym.learning.rollout_log import log_rollout
from textgym.learning.text_groups import total_rewards
from textgym.policies.generation import GeneratedText, generate
from textgym.policies.kl import never_negative_kls
from textgym.tasks import Task


class TextAgent(Agent):
    """An agent whose iterations work on whole texts. Subclasses implement `iterate` with the pieces below it.

    Args:
        task: As for `Agent`.
        learning_rate: Of Adam.
        batch_size: Tokens per forward pass of an update; gradients are accumulated, so it changes memory, not the result.
        max_grad_norm: Gradients are scaled down to this L2 norm.
        lr_schedule: "constant", or "linear" down to 0 at the end of the budget.
        kl_coef: Coefficient of the KL penalty with the reference model; by default 0.1, or 0 where that model has no weights yet.
        **settings: Those of `Agent`.

    Attributes:
        rng: Draws prompts and samples; part of the saved state.
        replay: Texts of earlier iterations, for subclasses that learn from such; part of the saved state.
        optimisation: Steps on the policy.
    """

    replay: TokenReplay | None = None

    def __init__(
        self,
        task: str | Task,
        learning_rate: float = 5e-4,
        batch_size: int = 1024,
        max_grad_norm: float = 1.0,
        lr_schedule: Schedule = "constant",
        kl_coef: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(task, **settings)
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size must be at least 1 token, got {batch_size}")
        self.batch_size = batch_size
        self.kl_coef = self.kl_coefficient(kl_coef)
        self.policy = self.make_policy()
        self.optimisation = Optimisation(self.policy, learning_rate, max_grad_norm, lr_schedule)
        self.rng = np.random.default_rng(self.seed)
        self._goal = 0

    def learn(self, total_tokens: int) -> "TextAgent":
        """Iterate until at least `total_tokens` more tokens are spent."""
        self._goal = self.n_tokens + total_tokens
        while self.n_tokens < self._goal:
            self.n_tokens += self.iterate()
            self.logger.dump(self.n_tokens)
            self.on_iteration(self)
        return self

    @abstractmethod
    def iterate(self) -> int:
        """Do one iteration, record its figures, and return the tokens of the budget that it spent."""

    @property
    def progress(self) -> float:
        """Share of the budget that is behind, 0 to 1."""
        if self.budget_share is not None:
            return min(1.0, self.budget_share())
        return min(1.0, self.n_tokens / self._goal) if self._goal else 0.0

    # --- pieces of an iteration ----------------------------------------------------------------------------------------------------

    def check_group_size(self, group_size: int, least: int = 2) -> int:
        """Return the number of texts per prompt if the texts of an iteration can be dealt out in such groups; raise if not."""
        if group_size < least or self.env.num_envs % group_size:
            raise InvalidArgumentError(
                f"n_envs={self.env.num_envs} must be a multiple of group_size={group_size}, which must be at least {least}"
            )
        return group_size

    def write_groups(self, group_size: int = 1) -> list[GeneratedText]:
        """Write one text per environment, `group_size` of them, one after the other, for each drawn prompt; the task's reward included."""
        mdp = self.env.mdp
        self.check_group_size(group_size, least=1)
        prompts = self.rng.integers(mdp.n_prompts, size=mdp.n_rows // group_size)
        texts = generate(self.policy, mdp, np.repeat(prompts, group_size).tolist(), self.rng)
        seen = texts[: n_looked_at((len(t.prompt_ids), len(t.action_ids)) for t in texts)]
        part = next(micro_batches(seen, self.batch_size, self.device, {"written": [t.log_probs for t in seen]}))
        self.log_update(sampling_difference(self.policy, part.packed, part.columns["written"]))
        return texts

    def reference_log_probs(self, texts: Sequence[GeneratedText]) -> list[NDArray[np.float64]]:
        """Return the reference model's log-probability of every token, per text (tokens of it,)."""
        if self.reference is None:
            raise InvalidArgumentError(f"agent {self.name!r} has no reference model, but {self.model!r} has no weights yet")
        flat = self.reference.log_probs([(t.prompt_ids, t.action_ids) for t in texts], self.policy.rule, self.env.mdp.allowed_mask)
        return split_by_text(flat.astype(np.float64), texts)

    def penalised_rewards(
        self, texts: Sequence[GeneratedText], reference: Sequence[NDArray[np.float64]] | None = None
    ) -> tuple[list[NDArray[np.float64]], float]:
        """Return per text (tokens of it,) the rewards less `kl_coef` · log(π/π_ref), and the mean KL per token (k1, nats; nan without model).

        The KL by the estimators k2 and k3 is recorded as "rollout/kl_k2" and "rollout/kl_k3".

        Args:
            texts: Of the policy.
            reference: What `reference_log_probs` returned, where it is needed for more than this.
        """
        if self.reference is None:
            return [t.rewards for t in texts], float("nan")
        reference = self.reference_log_probs(texts) if reference is None else reference
        log_ratios = [t.log_probs - theirs for t, theirs in zip(texts, reference, strict=True)]
        penalised = [t.rewards - self.kl_coef * ratio for t, ratio in zip(texts, log_ratios, strict=True)]
        flat = np.concatenate(log_ratios)
        for name, value in never_negative_kls(flat).items():
            self.logger.record(f"rollout/{name}", value)
        return penalised, float(flat.mean())

    def log_texts(self, texts: Sequence[GeneratedText], kl: float, **figures: float) -> None:
        """Record the texts of an iteration; raises `RewardError` if the reward gave up every one of them."""
        totals = total_rewards(texts)
        if not np.isfinite(totals).any():
            raise RewardError("the reward gave up every text of a batch (on_failure='drop'): nothing is left to learn from")
        statistics = {"task_reward": float(np.nanmean(totals)), **figures}
        if self.reference is not None:
            statistics |= {"kl": kl, "kl_coef": self.kl_coef}
        if (dropped := int((~np.isfinite(totals)).sum())) > 0:
            statistics["dropped"] = float(dropped)
        log_rollout(self, [t.info for t in texts], totals.tolist(), [len(t.action_ids) for t in texts], statistics)

    def log_update(self, figures: Mapping[str, float]) -> None:
        """Record the figures of an update."""
        for name, value in figures.items():
            self.logger.record(f"train/{name}", value)

    # --- exact resume --------------------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the replay, if there is one."""
        return {**super().arrays(), **(self.replay.arrays() if self.replay is not None else {})}

    def state(self) -> dict[str, Any]:
        """Return the state with the agent's own generator."""
        return {**super().state(), "rng": self.rng.bit_generator.state}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.rng.bit_generator.state = state["rng"]
        if self.replay is not None:
            self.replay.load_arrays(arrays)
