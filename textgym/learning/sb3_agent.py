"""SB3Agent: the thin face that gives an unmodified stable-baselines3 algorithm the interface of all agents."""

import warnings
from collections.abc import Mapping
from functools import cached_property
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from textgym.agent import Agent, Bounds, Costs
from textgym.errors import DivergenceError
from textgym.learning.first_pass import n_looked_at, sampling_difference
from textgym.learning.optimisation import ADVICE
from textgym.learning.rollout_log import log_rollout
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.reference import ReferenceModel
from textgym.policies.rollout_buffer import EpisodeRolloutBuffer
from textgym.tasks import Task


class SB3Agent(Agent):
    """An on-policy algorithm of stable-baselines3 as an agent; subclasses say which one and with which hyperparameters.

    Args:
        task: As for `Agent`.
        algorithm: The class, `PPO`, `A2C` or `TRPO`.
        hyperparameters: Its arguments beside policy and environment.
        kl_coef: Coefficient of the KL penalty with the model the agent starts from, see `EpisodeRolloutBuffer`; by default 0.1, or 0 where
            that model has no weights yet.
        kl_target: Steer the coefficient, above 0 at the start, to this KL per token; None keeps it fixed.
        **settings: Those of `Agent`.
    """

    bounds: ClassVar[Bounds] = {  # which stable-baselines3 does not check
        **dict.fromkeys(("n_steps", "batch_size", "n_epochs"), (1, inf)),
        **dict.fromkeys(("gamma", "gae_lambda"), (0, 1)),
        **dict.fromkeys(("clip_range", "vf_coef", "max_grad_norm"), (0, inf)),
    }

    def __init__(
        self,
        task: str | Task,
        algorithm: type[OnPolicyAlgorithm],
        hyperparameters: Mapping[str, Any],
        kl_coef: float | None = None,
        kl_target: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(task, **settings)
        with warnings.catch_warnings():
            # about a last small minibatch, which EpisodeRolloutBuffer does not have: it deals whole segments out evenly
            warnings.filterwarnings("ignore", "You have specified a mini-batch size")
            self.algorithm = algorithm(
                self.policy_class,  # type: ignore[arg-type]  # a BasePolicy, which is all that the algorithms use
                self.env,
                policy_kwargs={**self.policy_settings, **self.policy_options()},
                rollout_buffer_class=EpisodeRolloutBuffer,
                rollout_buffer_kwargs={
                    "kl_coef": self.kl_coefficient(kl_coef),
                    "kl_target": kl_target,
                    "reference_model": self.reference_model,
                },
                seed=self.seed,
                device=self.device,
                **hyperparameters,
            )
        self.policy: CausalLMPolicy = self.algorithm.policy  # type: ignore[assignment]
        if self.policy.lm.adapter_base:
            self._buffer.share_reference(self.policy)
        self._pending: dict[str, float] = {}
        self.running = np.zeros((2, self.env.num_envs))  # reward and tokens so far of the text in each environment

    def learn(self, total_tokens: int) -> "SB3Agent":
        """Run the algorithm's own `learn` for at least `total_tokens` more tokens."""
        self.algorithm.set_logger(self.logger)
        self.algorithm.num_timesteps = self.n_tokens
        for key, value in self._pending.items():
            self.logger.record(key, value)
        self.algorithm.learn(total_tokens, callback=_IterationCallback(self), log_interval=1, reset_num_timesteps=False)
        return self

    @cached_property
    def reference(self) -> ReferenceModel | None:
        """The frozen reference model, that of the rollout buffer."""
        return self._buffer.reference

    @property
    def _buffer(self) -> EpisodeRolloutBuffer:
        buffer: Any = self.algorithm.rollout_buffer
        found: EpisodeRolloutBuffer = buffer
        return found

    def after_update(self) -> None:
        """Do what a subclass does between an update and the next rollout; nothing here."""

    @property
    def costs(self) -> Costs:
        """What learning has cost so far."""
        return Costs(self.env.mdp.n_steps, self._buffer.n_tokens_trained, self.env.mdp.n_scored)

    def set_logger(self, logger: Logger) -> None:
        """Log to the given logger."""
        super().set_logger(logger)
        self.algorithm.set_logger(logger)

    def state(self) -> dict[str, Any]:
        """Return the state with the algorithm's counters and the figures of the last update that are not logged yet."""
        starts = self.algorithm._last_episode_starts
        return {
            **super().state(),
            "n_tokens_trained": self._buffer.n_tokens_trained,
            "n_updates": int(getattr(self.algorithm, "_n_updates", 0)),
            "episode_starts": np.asarray(starts, bool).tolist() if starts is not None else None,
            "kl_coef": self._buffer.kl.coef,
            "running": self.running.tolist(),
            "pending": {k: float(v) for k, v in self.logger.name_to_value.items() if isinstance(v, (int, float, np.number))},
        }

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.algorithm.num_timesteps = self.n_tokens
        self.algorithm._n_updates = state["n_updates"]
        if state["episode_starts"] is not None:
            self.algorithm._last_obs = self.env.mdp.observe()
            self.algorithm._last_episode_starts = np.array(state["episode_starts"], bool)
        self._buffer.kl.coef, self._buffer.n_tokens_trained = state["kl_coef"], state["n_tokens_trained"]
        self.running[:] = state["running"]
        self._pending = dict(state["pending"])


class _IterationCallback(BaseCallback):
    """Logs the texts of each rollout, and calls the agent's `on_iteration` between an update and the next rollout."""

    def __init__(self, agent: SB3Agent) -> None:
        super().__init__()
        self.agent = agent
        self._iterations = 0
        self._infos: list[dict[str, Any]] = []
        self._rewards: list[float] = []
        self._lengths: list[int] = []

    def _on_rollout_start(self) -> None:
        if self._iterations:
            self._finish_iteration()
        self._iterations += 1
        self._infos, self._rewards, self._lengths = [], [], []

    def _on_step(self) -> bool:
        running = self.agent.running
        running[0] += self.locals["rewards"]
        running[1] += 1
        for env in np.flatnonzero(self.locals["dones"]):
            self._infos.append(self.locals["infos"][env])
            self._rewards.append(float(running[0, env]))
            self._lengths.append(int(running[1, env]))
            running[:, env] = 0
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.agent._buffer
        log_rollout(self.agent, self._infos, self._rewards, self._lengths, buffer.statistics)
        for name, value in sampling_difference(self.agent.policy, *buffer.head(n_looked_at(buffer.sizes))).items():
            self.agent.logger.record(f"train/{name}", value)

    def _on_training_end(self) -> None:
        self._finish_iteration()

    def _finish_iteration(self) -> None:
        for name, weight in self.agent.policy.named_parameters():
            if not torch.isfinite(weight).all():
                rate = self.agent.policy.optimizer.param_groups[0]["lr"]
                raise DivergenceError(f"the weights {name} are no longer finite, with a learning rate of {rate:g}: {ADVICE}")
        self.agent.n_tokens = self.num_timesteps
        self.agent.after_update()
        self.agent.on_iteration(self.agent)
