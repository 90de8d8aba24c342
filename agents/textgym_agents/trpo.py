"""Trust region policy optimisation: sb3-contrib's TRPO with its gradients taken in one backward pass."""

from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from textgym.agent import Bounds
from textgym.errors import MissingExtraError
from textgym.learning.sb3_agent import SB3Agent
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class TRPOAgent(SB3Agent):
    """Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477), sb3-contrib's own.

    Each iteration takes one step θ ← θ + √(2δ / xᵀHx) x, x ≈ H⁻¹g by conjugate gradients, with g the gradient of E[(π/π_old) Â] and H that of
    KL(π_old ‖ π), halved until the KL is below δ = `target_kl` and the objective rises. The KL of the step is bounded exactly where PPO only
    clips, at the price of second derivatives (attention "eager"). Needs the extra "contrib".

    Args:
        task: As for `textgym.make_agent`.
        learning_rate: Of the value head; the policy's step follows from `target_kl`.
        n_steps, batch_size, gamma, gae_lambda, cg_max_steps, cg_damping, line_search_shrinking_factor, line_search_max_iter,
            n_critic_updates, target_kl: Of sb3-contrib's TRPO; `target_kl` is nats per token, `batch_size` counts tokens of a value step.
        **settings: Those of `textgym.learning.sb3_agent.SB3Agent` (`kl_coef`, `kl_target`) and `textgym.agent.Agent`.
    """

    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(3e-4, 1e-2, log=True),  # of the value head alone
        "target_kl": Range(0.005, 0.08, log=True),
        "n_critic_updates": Range(1, 4),
    }

    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("cg_max_steps", "line_search_max_iter", "n_critic_updates"), (1, inf)),
        **dict.fromkeys(("cg_damping", "target_kl"), (0, inf)),
        "line_search_shrinking_factor": (0, 1),
    }

    def __init__(
        self,
        task: str | Task,
        learning_rate: float = 1e-3,
        n_steps: int = 24,
        batch_size: int = 768,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        cg_max_steps: int = 8,
        cg_damping: float = 0.1,
        line_search_shrinking_factor: float = 0.5,
        line_search_max_iter: int = 8,
        n_critic_updates: int = 2,
        target_kl: float = 0.02,
        **settings: Any,
    ) -> None:
        hyperparameters = {
            "learning_rate": learning_rate,
            "n_steps": n_steps,
            "batch_size": batch_size,
            "gamma": gamma,
            "gae_lambda": gae_lambda,
            "cg_max_steps": cg_max_steps,
            "cg_damping": cg_damping,
            "line_search_shrinking_factor": line_search_shrinking_factor,
            "line_search_max_iter": line_search_max_iter,
            "n_critic_updates": n_critic_updates,
            "target_kl": target_kl,
        }
        super().__init__(task, one_pass_trpo(), hyperparameters, **settings)

    def policy_options(self) -> dict[str, Any]:
        """Return what second derivatives need, and keep the value loss to the value head."""
        return {"attention": "eager", "detach_value": True}


def one_pass_trpo() -> type[Any]:
    """Return sb3-contrib's TRPO with one backward pass for the gradient of each of its two objectives.

    The original takes one per weight tensor and differentiates through all of those graphs again for every curvature-vector product. The
    numbers are the same, less rounding. Raises `MissingExtraError` without sb3-contrib.
    """
    try:
        from sb3_contrib import TRPO
    except ImportError:
        raise MissingExtraError("the agent 'trpo'", "contrib") from None

    class OnePassTRPO(TRPO):
        def _compute_actor_grad(
            self, kl_div: Tensor, policy_objective: Tensor
        ) -> tuple[list[nn.Parameter], Tensor, Tensor, list[tuple[int, ...]]]:
            """Return the weights of the policy, the gradients of surrogate and KL in them, flat, and their shapes."""
            learning = [p for name, p in self.policy.named_parameters() if p.requires_grad and not name.startswith("value_head.")]
            curved = torch.autograd.grad(kl_div, learning, create_graph=True, allow_unused=True)
            found = [(weight, slope) for weight, slope in zip(learning, curved, strict=True) if slope is not None]
            weights = [weight for weight, _ in found]
            rising = torch.autograd.grad(policy_objective, weights, retain_graph=True)
            shapes = [tuple(weight.shape) for weight in weights]
            return weights, torch.cat([g.reshape(-1) for g in rising]), torch.cat([slope.reshape(-1) for _, slope in found]), shapes

    return OnePassTRPO
