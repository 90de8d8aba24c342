"""NLPO: PPO whose choices are masked by a lagging copy of the policy."""

from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.policies.nucleus_masked_policy import NucleusMaskedPolicy
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task
from textgym_agents.ppo import PPOAgent


class NLPOAgent(PPOAgent):
    """Natural language policy optimisation (Ramamurthy et al. 2022, arXiv:2210.01241): PPO under a top-p mask that lags behind.

    The policy draws from π(a | s) restricted to the nucleus of an older copy of itself, which shrinks the action space to what was
    probable; rollout, ratio and entropy are all of the masked distribution, and the first ratio is 1. Stable-baselines3's PPO, unmodified
    (sb3-contrib's MaskablePPO wants a policy class of its own and masks from the environment, a vocabulary per stored token).

    Args:
        task: As for `textgym.make_agent`.
        top_p: Share of the copy's probability that stays allowed.
        mask_interval: Iterations (rollout and update) between copies.
        **settings: Those of the agent "ppo".
    """

    policy_class = NucleusMaskedPolicy
    policy: NucleusMaskedPolicy

    search_space: ClassVar[SearchSpace] = {"top_p": Range(0.8, 0.98), "mask_interval": Range(1, 10)}

    def __init__(self, task: str | Task, top_p: float = 0.9, mask_interval: int = 5, **settings: Any) -> None:
        if mask_interval < 1:
            raise InvalidArgumentError(f"mask_interval must be at least 1 iteration, got {mask_interval}")
        self.top_p, self.mask_interval, self.n_iterations = top_p, mask_interval, 0
        super().__init__(task, **settings)
        self.writing_modules["mask"] = self.policy.mask_lm  # texts are written under the mask

    def policy_options(self) -> dict[str, Any]:
        """Return the mask's share."""
        return {"top_p": self.top_p}

    def after_update(self) -> None:
        """Copy the policy into the mask every `mask_interval` iterations."""
        self.n_iterations += 1
        if self.n_iterations % self.mask_interval == 0:
            self.policy.update_mask()

    def state(self) -> dict[str, Any]:
        """Return the state with the count of iterations."""
        return {**super().state(), "n_iterations": self.n_iterations}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.n_iterations = state["n_iterations"]
