"""EpisodeRolloutBuffer: rollouts kept as token streams, given back one pass per episode segment, with a KL penalty."""

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from textgym.envs.token_space import TokenSpace
from textgym.errors import InvalidArgumentError, RewardError
from textgym.lm.packing import PackedBatch, pack
from textgym.lm.source import resolve_model
from textgym.lm.token_distribution import SamplingRule
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.kl import KLController, never_negative_kls
from textgym.policies.reference import ReferenceModel


@dataclass(frozen=True)
class Segment:
    """The part of an episode that lies in this rollout: environment, steps [start, stop), and the prefix before its first action."""

    env: int
    start: int
    stop: int
    prefix: NDArray[np.int64]


class EpisodeRolloutBuffer(RolloutBuffer):
    """A rollout buffer for `CausalLMPolicy`, used by unmodified PPO, A2C and TRPO.

    Stable-baselines3's own buffer stores the whole prefix for every token and gives single (prefix, token) samples back, so an update costs one
    pass over the prefix per token. This one stores each token once and yields minibatches whose `observations` are a `PackedBatch`: one
    pass per segment. Losses, ratios and clipping stay stable-baselines3's, token by token. `batch_size` counts tokens; a minibatch holds
    whole segments, so its size varies around it.

    Args:
        buffer_size: Steps per environment.
        observation_space, action_space, device, gae_lambda, gamma, n_envs: As in stable-baselines3.
        kl_coef: Coefficient of the KL penalty, in reward units per nat; 0 for none.
        reference_model: The frozen model of the penalty: name, directory, `.gguf` file or hub id. The KL is measured whenever it is given. It
            is loaded when it is first asked; see also `share_reference`.
        kl_target: Steer `kl_coef` towards this KL per token (nats); None keeps it fixed.
        kl_horizon: See `KLController`.
        reference_dtype: Dtype of the reference model's weights.

    Attributes:
        statistics: Figures of the last rollout: "kl" (mean over tokens of log π − log π_ref, nats: the estimator k1 of Schulman's note
            http://joschu.net/blog/kl-approx.html), "kl_k2" and "kl_k3" (the same by his other estimators, which are never negative), "kl_coef", "task_reward" (mean per step, without the penalty), "dropped" (episodes whose
            reward is nan because it could not be found: they are left out of learning).
        n_tokens_trained: Tokens given back in minibatches so far, every epoch counted.

    References:
        Penalty inside the reward: Ziegler et al. 2019, arXiv:1909.08593, equation 2. GAE: Schulman et al. 2016, arXiv:1506.02438.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        gae_lambda: float = 1.0,
        gamma: float = 0.99,
        n_envs: int = 1,
        kl_coef: float = 0.0,
        reference_model: str | os.PathLike[str] | None = None,
        kl_target: float | None = None,
        kl_horizon: int = 10_000,
        reference_dtype: str = "float32",
    ) -> None:
        if (kl_coef > 0 or kl_target is not None) and reference_model is None:
            raise InvalidArgumentError("a KL penalty needs reference_model=, the frozen model to stay close to (a name or a directory)")
        self.n_tokens_trained = 0
        super().__init__(buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs)
        self.kl = KLController(kl_coef, kl_target, kl_horizon)
        self._reference_model, self._reference_dtype = reference_model, reference_dtype
        self._reference: ReferenceModel | None = None
        if reference_model is not None:
            resolve_model(reference_model)  # which raises for an unknown one
        self.statistics: dict[str, float] = {}

    @property
    def reference(self) -> ReferenceModel | None:
        """The frozen model, None without one."""
        if self._reference is None and self._reference_model is not None:
            self._reference = ReferenceModel(self._reference_model, self.device, self._reference_dtype)
        return self._reference

    def share_reference(self, policy: CausalLMPolicy) -> None:
        """Let a policy that learns by adapters (`lora_rank`) be its own reference model, adapters off, if that is the model it started from."""
        if self._reference_model is not None:
            self._reference = ReferenceModel(self._reference_model, self.device, self._reference_dtype, policy.lm)

    def reset(self) -> None:
        """Empty the buffer for the next rollout."""
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros(shape, np.int64)
        self.rewards = np.zeros(shape, np.float32)
        self.returns = np.zeros(shape, np.float32)
        self.episode_starts = np.zeros(shape, np.float32)
        self.values = np.zeros(shape, np.float32)
        self.log_probs = np.zeros(shape, np.float32)
        self.advantages = np.zeros(shape, np.float32)
        self.segments: list[Segment] = []
        self._prefixes: dict[tuple[int, int], NDArray[np.int64]] = {}
        self.pos, self.full, self.generator_ready = 0, False, False

    def add(
        self,
        obs: Any,
        action: NDArray[Any],
        reward: NDArray[Any],
        episode_start: NDArray[Any],
        value: torch.Tensor,
        log_prob: torch.Tensor,
    ) -> None:
        """Store one step of all environments; of the observations, only the prefixes with which segments begin."""
        if log_prob.shape != (self.n_envs,):
            raise InvalidArgumentError(f"log_prob must have shape ({self.n_envs},), got {tuple(log_prob.shape)}: the ratio would broadcast")
        starting = np.ones(self.n_envs, np.bool_) if self.pos == 0 else np.asarray(episode_start, np.bool_)
        for env in np.flatnonzero(starting):
            length = int(obs["attention_mask"][env].sum())
            self._prefixes[int(env), self.pos] = obs["input_ids"][env, :length].copy()
        self.actions[self.pos] = action.reshape(-1)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.values[self.pos] = value.clone().cpu().numpy().flatten()
        self.log_probs[self.pos] = log_prob.clone().cpu().numpy()
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: NDArray[Any]) -> None:
        """Subtract the KL penalty from the rewards, then compute advantages and returns as stable-baselines3 does."""
        self.segments = self._find_segments()
        dropped = {i for i, s in enumerate(self.segments) if np.isnan(self.rewards[s.start : s.stop, s.env]).any()}
        self.statistics = {"task_reward": float(np.nanmean(self.rewards)) if len(dropped) < len(self.segments) else float("nan")}
        if dropped:
            self.statistics["dropped"] = float(len(dropped))
            np.nan_to_num(self.rewards, copy=False)  # a nan would cross the episodes' borders in the sum below, as 0 * nan
        if self.reference is not None:
            kl = self.log_probs - self._reference_log_probs(self.reference)  # (steps, envs), nats
            self.statistics.update(kl=float(kl.mean()), **never_negative_kls(kl), kl_coef=self.kl.coef)
            self.rewards -= self.kl.coef * kl
            self.kl.update(float(kl.mean()), kl.size)
        super().compute_returns_and_advantage(last_values, dones)
        self.segments = [s for i, s in enumerate(self.segments) if i not in dropped]
        if not self.segments:
            raise RewardError("the reward gave up every episode of a rollout (on_failure='drop'): nothing is left to learn from")

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the rollout in shuffled minibatches of whole segments with about `batch_size` tokens each; None for one batch of all."""
        # the order comes from NumPy's global generator, as in stable-baselines3's own buffer
        order = np.random.permutation(len(self.segments)) if batch_size else np.arange(len(self.segments))  # noqa: NPY002
        sizes = np.array([self.segments[i].stop - self.segments[i].start for i in order])
        n_batches = max(1, round(sizes.sum() / batch_size)) if batch_size else 1
        # segment → minibatch by the middle of its tokens in the shuffled stream: equal shares, no small rest
        middle = np.cumsum(sizes) - sizes / 2
        numbers = np.minimum((middle * n_batches / sizes.sum()).astype(int), n_batches - 1)
        for number in np.unique(numbers):
            yield self._samples([self.segments[i] for i in order[numbers == number]])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(Tokens of the prefix, tokens written) of each segment."""
        return [(len(s.prefix), s.stop - s.start) for s in self.segments]

    def head(self, n_segments: int) -> tuple[PackedBatch, torch.Tensor]:
        """Return the first segments and the log-probabilities they were written with, (T,)."""
        kept = self.segments[:n_segments]
        batch = pack([(s.prefix, self.actions[s.start : s.stop, s.env]) for s in kept]).to(self.device)
        return batch, torch.from_numpy(np.concatenate([self.log_probs[s.start : s.stop, s.env] for s in kept]))

    def _samples(self, segments: list[Segment]) -> RolloutBufferSamples:
        batch = pack([(s.prefix, self.actions[s.start : s.stop, s.env]) for s in segments]).to(self.device)
        self.n_tokens_trained += len(batch)

        def stream(array: NDArray[np.float32]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([array[s.start : s.stop, s.env] for s in segments])).to(self.device)

        return RolloutBufferSamples(
            observations=batch,  # type: ignore[arg-type]  # any object the policy's evaluate_actions takes
            actions=batch.actions,
            old_values=stream(self.values),
            old_log_prob=stream(self.log_probs),
            advantages=stream(self.advantages),
            returns=stream(self.returns),
        )

    def _find_segments(self) -> list[Segment]:
        found = []
        for env in range(self.n_envs):
            starts = sorted(step for e, step in self._prefixes if e == env)
            for start, stop in zip(starts, [*starts[1:], self.pos], strict=True):
                found.append(Segment(env, start, stop, self._prefixes[env, start]))
        return found

    def _reference_log_probs(self, reference: ReferenceModel) -> NDArray[np.float32]:
        space = self.action_space
        rule = getattr(space, "sampling_rule", None) or SamplingRule()
        allowed = space.allowed_mask if isinstance(space, TokenSpace) else None
        streams = [(s.prefix, self.actions[s.start : s.stop, s.env]) for s in self.segments]
        flat = reference.log_probs(streams, rule, allowed)
        log_probs = np.zeros_like(self.log_probs)
        start = 0
        for segment in self.segments:
            stop = start + segment.stop - segment.start
            log_probs[segment.start : segment.stop, segment.env] = flat[start:stop]
            start = stop
        return log_probs
