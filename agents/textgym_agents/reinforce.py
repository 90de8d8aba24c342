"""REINFORCE: Monte-Carlo policy gradient with a moving-average, leave-one-out (RLOO) or learned baseline."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from textgym.agent import Bounds
from textgym.errors import InvalidArgumentError
from textgym.learning.micro_batches import micro_batches
from textgym.learning.returns import leave_one_out, returns_to_go, whitened
from textgym.learning.text_agent import TextAgent
from textgym.policies.generation import GeneratedText
from textgym.search_space import Choice, SearchSpace
from textgym.tasks import Task

Baseline = Literal["none", "moving-average", "leave-one-out", "learned"]
BASELINES = ("none", "moving-average", "leave-one-out", "learned")
MOVING_AVERAGE = 0.9  # weight of the past


class ReinforceAgent(TextAgent):
    """REINFORCE (Williams 1992) on whole texts, θ ← θ + α Σ_t (G_t − b) ∇ log π(a_t | s_t).

    G_t is the sum of rewards from token t on, less `kl_coef` times the log-ratio to the model the agent starts from. Each iteration writes
    one text per environment and takes one optimizer step.

    Args:
        task: As for `textgym.make_agent`.
        baseline: What is subtracted from G_t. "moving-average": the mean return of the last iterations; "leave-one-out": the mean return of
            the other texts of the same prompt (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740, RLOO); "learned": the value head.
        group_size: Texts per prompt with "leave-one-out".
        vf_coef: Weight of the value loss with "learned".
        normalize_advantage: Divide advantages by their standard deviation over the iteration; not with "learned", whose advantages are only
            known in the update.
        **settings: Those of `textgym.learning.text_agent.TextAgent` (`learning_rate`, `kl_coef`, ...) and `textgym.agent.Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"baseline": Choice(BASELINES), "group_size": Choice((2, 4, 8))}

    bounds: ClassVar[Bounds] = {"vf_coef": (0, inf)}

    def __init__(
        self,
        task: str | Task,
        baseline: Baseline = "leave-one-out",
        group_size: int = 4,
        vf_coef: float = 0.1,
        normalize_advantage: bool = True,
        **settings: Any,
    ) -> None:
        if baseline not in BASELINES:
            raise InvalidArgumentError(f"baseline must be one of {', '.join(BASELINES)}, got {baseline!r}")
        super().__init__(task, **settings)
        self.group_size = self.check_group_size(group_size) if baseline == "leave-one-out" else 1
        self.baseline, self.vf_coef, self.normalize_advantage = baseline, vf_coef, normalize_advantage
        self.mean_return: float | None = None

    def iterate(self) -> int:
        """Write texts, subtract a baseline from their returns, take one step."""
        texts = self.write_groups(self.group_size)
        rewards, kl = self.penalised_rewards(texts)
        self.log_texts(texts, kl)
        returns = [returns_to_go(r) for r in rewards]
        advantages = [g - b for g, b in zip(returns, self._baselines(returns), strict=True)]
        kept = [i for i, a in enumerate(advantages) if np.isfinite(a).all()]  # less those that the reward gave up
        if kept:
            learnt, worth = [texts[i] for i in kept], [advantages[i] for i in kept]
            if self.normalize_advantage and self.baseline != "learned":
                worth = whitened(worth, shift=False)
            self.log_update(self.optimisation.step(self._losses(learnt, worth), self.progress))
            self.n_tokens_trained += sum(map(len, worth))
        return sum(len(t.action_ids) for t in texts)

    def _baselines(self, returns: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the baseline of each text, (n,), from the returns of whole texts; nan for a text with nothing to be compared with."""
        totals = np.array([g[0] for g in returns])
        if self.baseline == "leave-one-out":
            return leave_one_out(totals, self.group_size)
        if self.baseline == "moving-average":
            before = np.nanmean(totals) if self.mean_return is None else self.mean_return
            self.mean_return = float(MOVING_AVERAGE * before + (1 - MOVING_AVERAGE) * np.nanmean(totals))
            return np.full(len(totals), before)
        return np.zeros(len(totals))

    def _losses(self, texts: list[GeneratedText], advantages: list[NDArray[np.float64]]) -> Iterator[tuple[Tensor, dict[str, float]]]:
        n_tokens = sum(map(len, advantages))
        for batch in micro_batches(texts, self.batch_size, self.device, {"advantage": advantages}):
            values, log_prob, entropy = self.policy.evaluate_actions(batch.packed, batch.packed.actions)
            advantage = batch.columns["advantage"]
            value_loss = values.new_zeros(())
            if self.baseline == "learned":
                value_loss = (values - advantage).square().sum() / n_tokens
                advantage = advantage - values.detach()
            policy_loss = -(advantage * log_prob).sum() / n_tokens
            figures = {
                "policy_gradient_loss": policy_loss.item(),
                "value_loss": value_loss.item(),
                "entropy_loss": -entropy.sum().item() / n_tokens,
            }
            yield policy_loss + self.vf_coef * value_loss, figures

    def state(self) -> dict[str, Any]:
        """Return the state with the moving average."""
        return {**super().state(), "mean_return": self.mean_return}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.mean_return = state["mean_return"]
