"""Proximal policy optimisation: stable-baselines3's PPO, unmodified."""

from typing import Any, ClassVar

from stable_baselines3 import PPO

from textgym.learning.sb3_agent import SB3Agent
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task


class PPOAgent(SB3Agent):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), stable-baselines3's own.

    Args:
        task: As for `textgym.make_agent`.
        learning_rate, n_steps, batch_size, n_epochs, gamma, gae_lambda, clip_range, ent_coef, vf_coef, max_grad_norm: Of
            stable-baselines3's PPO; `batch_size` counts tokens, γ = 1 because the reward comes at the end of a short text.
        **settings: Those of `textgym.learning.sb3_agent.SB3Agent` (`kl_coef`, `kl_target`) and `textgym.agent.Agent`.
    """

    search_space: ClassVar[SearchSpace] = {
        "n_epochs": Range(1, 4),
        "batch_size": Choice((128, 256, 384)),
        "clip_range": Range(0.1, 0.4),
    }

    def __init__(
        self,
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
        **settings: Any,
    ) -> None:
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
        super().__init__(task, PPO, hyperparameters, **settings)
