"""The agent "reinforce": Monte-Carlo policy gradient with a moving-average, leave-one-out or learned baseline."""

from typing import Any, Literal

import textgym
from textgym.tasks import Task

Baseline = Literal["none", "moving-average", "leave-one-out", "learned"]


def reinforce(
    task: str | Task,
    learning_rate: float = 5e-4,
    baseline: Baseline = "leave-one-out",
    group_size: int = 4,
    batch_size: int = 1024,
    vf_coef: float = 0.1,
    max_grad_norm: float = 1.0,
    normalize_advantage: bool = True,
    kl_coef: float | None = None,
    **settings: Any,
) -> Any:
    """REINFORCE (Williams 1992) on whole texts, θ ← θ + α Σ_t (G_t − b) ∇ log π(a_t | s_t).

    G_t is the sum of rewards from token t on, less `kl_coef` times the log-ratio to the model the agent starts from. Each iteration writes
    one text per environment and takes one optimizer step.

    Args:
        task: As for `textgym.make_agent`.
        learning_rate: Of Adam.
        baseline: What is subtracted from G_t. "moving-average": the mean return of the last iterations; "leave-one-out": the mean return of
            the other texts of the same prompt (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740, RLOO); "learned": the value head.
        group_size: Texts per prompt with "leave-one-out".
        batch_size: Tokens per forward pass of the update; gradients are accumulated, so it changes memory, not the result.
        vf_coef: Weight of the value loss with "learned".
        max_grad_norm: Gradient clipping.
        normalize_advantage: Divide advantages by their standard deviation over the iteration.
        kl_coef: Coefficient of the KL penalty; by default 0.1, or 0 where the model has no weights yet.
        **settings: Those of `textgym.agent.Agent`.
    """
    from textgym_agents.reinforce_agent import ReinforceAgent

    return ReinforceAgent(
        task,
        settings,
        learning_rate=learning_rate,
        baseline=baseline,
        group_size=group_size,
        batch_size=batch_size,
        vf_coef=vf_coef,
        max_grad_norm=max_grad_norm,
        normalize_advantage=normalize_advantage,
        kl_coef=kl_coef,
    )


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agent."""
    register("reinforce", reinforce)
