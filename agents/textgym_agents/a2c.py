"""Advantage actor-critic: stable-baselines3's A2C, unmodified."""

from typing import Any, ClassVar

from stable_baselines3 import A2C

from textgym.learning.sb3_agent import SB3Agent
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task


class A2CAgent(SB3Agent):
    """Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, synchronous), stable-baselines3's own with Adam.

    Args:
        task: As for `textgym.make_agent`.
        learning_rate, n_steps, gamma, gae_lambda, ent_coef, vf_coef, max_grad_norm, normalize_advantage: Of stable-baselines3's A2C; its
            defaults (n_steps 5, RMSprop, γ 0.99) do not suit texts with one reward at the end.
        **settings: Those of `textgym.learning.sb3_agent.SB3Agent` (`kl_coef`, `kl_target`) and `textgym.agent.Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"n_steps": Choice((6, 12, 24)), "gae_lambda": Range(0.8, 1.0)}

    def __init__(
        self,
        task: str | Task,
        learning_rate: float = 5e-4,
        n_steps: int = 12,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        ent_coef: float = 0.0,
        vf_coef: float = 0.1,
        max_grad_norm: float = 1.0,
        normalize_advantage: bool = True,
        **settings: Any,
    ) -> None:
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
        super().__init__(task, A2C, hyperparameters, **settings)
