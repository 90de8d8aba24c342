"""The agent "a2c": stable-baselines3's A2C, unmodified."""

from typing import Any

import textgym
from textgym.tasks import Task


def a2c(
    task: str | Task,
    learning_rate: float = 5e-4,
    n_steps: int = 12,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
    ent_coef: float = 0.0,
    vf_coef: float = 0.1,
    max_grad_norm: float = 1.0,
    normalize_advantage: bool = True,
    kl_coef: float | None = None,
    kl_target: float | None = None,
    **settings: Any,
) -> Any:
    """Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, synchronous), stable-baselines3's own with Adam.

    Args:
        task: As for `textgym.make_agent`.
        learning_rate, n_steps, gamma, gae_lambda, ent_coef, vf_coef, max_grad_norm, normalize_advantage: Of stable-baselines3's A2C; its
            defaults (n_steps 5, RMSprop, γ 0.99) do not suit texts with one reward at the end.
        kl_coef, kl_target: KL penalty with the model the agent starts from, see `EpisodeRolloutBuffer`; by default a coefficient of 0.1, or 0
            where that model has no weights yet.
        **settings: Those of `textgym.agent.Agent`.
    """
    from stable_baselines3 import A2C

    from textgym_agents.sb3_agent import SB3Agent

    hyperparameters = {
        "learning_rate": learning_rate,
        "n_steps": n_steps,
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        "ent_coef": ent_coef,
        "vf_coef": vf_coef,
        "max_grad_norm": max_grad_norm,
        "normalize_advantage": normalize_advantage,
        "use_rms_prop": False,
    }
    return SB3Agent(task, A2C, hyperparameters, kl_coef, kl_target, settings)


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agent."""
    register("a2c", a2c)
