"""The agent "ppo": stable-baselines3's PPO, unmodified."""

from typing import Any

import textgym
from textgym.tasks import Task


def ppo(
    task: str | Task,
    learning_rate: float = 3e-4,
    n_steps: int = 24,
    batch_size: int = 256,
    n_epochs: int = 2,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
    clip_range: float = 0.2,
    ent_coef: float = 0.0,
    vf_coef: float = 0.1,
    max_grad_norm: float = 1.0,
    kl_coef: float | None = None,
    kl_target: float | None = None,
    **settings: Any,
) -> Any:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), stable-baselines3's own.

    Args:
        task: As for `textgym.make_agent`.
        learning_rate, n_steps, batch_size, n_epochs, gamma, gae_lambda, clip_range, ent_coef, vf_coef, max_grad_norm: Of
            stable-baselines3's PPO; `batch_size` counts tokens, γ = 1 because the reward comes at the end of a short text.
        kl_coef, kl_target: KL penalty with the model the agent starts from, see `EpisodeRolloutBuffer`; by default a coefficient of 0.1, or 0
            where that model has no weights yet.
        **settings: Those of `textgym.agent.Agent`.
    """
    from stable_baselines3 import PPO

    from textgym_agents.sb3_agent import SB3Agent

    hyperparameters = {
        "learning_rate": learning_rate,
        "n_steps": n_steps,
        "batch_size": batch_size,
        "n_epochs": n_epochs,
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        "clip_range": clip_range,
        "ent_coef": ent_coef,
        "vf_coef": vf_coef,
        "max_grad_norm": max_grad_norm,
    }
    return SB3Agent(task, PPO, hyperparameters, kl_coef, kl_target, settings)


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agent."""
    register("ppo", ppo)
