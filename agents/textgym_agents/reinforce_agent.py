"""ReinforceAgent: the loop of REINFORCE - write texts, subtract a baseline, one gradient step."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textgym.agent import Agent
from textgym.errors import InvalidArgumentError, RewardError
from textgym.lm.packing import pack
from textgym.policies.generation import GeneratedText, generate
from textgym.policies.reference import ReferenceModel
from textgym_agents.sb3_agent import log_rollout

BASELINES = ("none", "moving-average", "leave-one-out", "learned")
MOVING_AVERAGE = 0.9  # weight of the past


class ReinforceAgent(Agent):
    """See `textgym_agents.reinforce.reinforce` for the arguments."""

    def __init__(
        self,
        task: Any,
        settings: Mapping[str, Any],
        *,
        learning_rate: float,
        baseline: str,
        group_size: int,
        batch_size: int,
        vf_coef: float,
        max_grad_norm: float,
        normalize_advantage: bool,
        kl_coef: float | None,
    ) -> None:
        if baseline not in BASELINES:
            raise InvalidArgumentError(f"baseline must be one of {', '.join(BASELINES)}, got {baseline!r}")
        super().__init__(task, **settings)
        self.group_size = group_size if baseline == "leave-one-out" else 1
        if self.group_size < 1 + (baseline == "leave-one-out") or self.env.num_envs % self.group_size:
            raise InvalidArgumentError(
                f"n_envs={self.env.num_envs} must be a multiple of group_size={group_size}, which must be at least 2"
            )
        self.baseline, self.batch_size, self.vf_coef = baseline, batch_size, vf_coef
        self.max_grad_norm, self.normalize_advantage, self.kl_coef = max_grad_norm, normalize_advantage, self.kl_coefficient(kl_coef)
        self.policy = self.make_policy()
        for group in self.policy.optimizer.param_groups:
            group["lr"] = learning_rate
        self.reference = None if self.reference_model is None else ReferenceModel(self.reference_model, self.device)
        self.rng = np.random.default_rng(self.seed)
        self.mean_return: float | None = None

    def learn(self, total_tokens: int) -> "ReinforceAgent":
        """Iterate until at least `total_tokens` more tokens are written."""
        goal = self.n_tokens + total_tokens
        while self.n_tokens < goal:
            texts = self._write()
            returns, kl = self._returns(texts)
            scored = np.array([np.isfinite(t.rewards).all() for t in texts])
            if not scored.any():
                raise RewardError("the reward gave up every text of a batch (on_failure='drop'): nothing is left to learn from")
            task_reward = float(np.mean([t.rewards.sum() for t, keep in zip(texts, scored, strict=True) if keep]))
            statistics = {"task_reward": task_reward, "kl": kl, "kl_coef": self.kl_coef}
            if not scored.all():
                statistics["dropped"] = float((~scored).sum())
            log_rollout(self, [t.info for t in texts], statistics)
            self._update(texts, returns)
            self.n_tokens += sum(len(t.action_ids) for t in texts)
            self.logger.dump(self.n_tokens)
            self.on_iteration(self)
        return self

    def _write(self) -> list[GeneratedText]:
        """Write one text per environment, `group_size` of them for each drawn prompt."""
        mdp = self.env.mdp
        prompts = self.rng.integers(mdp.n_prompts, size=mdp.n_rows // self.group_size)
        return generate(self.policy, mdp, np.repeat(prompts, self.group_size).tolist(), self.rng)

    def _returns(self, texts: list[GeneratedText]) -> tuple[list[NDArray[np.float64]], float]:
        """Return G_t of every text, penalty included, and the mean KL per token (nats)."""
        log_ratio = np.zeros(sum(len(t.action_ids) for t in texts))
        if self.reference is not None:
            streams = [(t.prompt_ids, t.action_ids) for t in texts]
            reference = self.reference.log_probs(streams, self.policy.rule, self.env.mdp.allowed_mask)
            log_ratio += np.concatenate([t.log_probs for t in texts]) - reference
        returns, start = [], 0
        for text in texts:
            stop = start + len(text.action_ids)
            rewards = text.rewards - self.kl_coef * log_ratio[start:stop]
            returns.append(np.cumsum(rewards[::-1])[::-1])
            start = stop
        return returns, float(log_ratio.mean())

    def _baselines(self, returns: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the baseline of each text, (n,), from the returns of whole texts; nan for a text with nothing to be compared with."""
        totals = np.array([g[0] for g in returns])
        if self.baseline == "leave-one-out":
            groups = totals.reshape(-1, self.group_size)
            others = np.isfinite(groups).sum(1, keepdims=True) - 1  # less those whose reward was given up
            mean = (np.nansum(groups, 1, keepdims=True) - groups) / np.where(others > 0, others, np.nan)
            return np.asarray(mean.reshape(-1), np.float64)
        if self.baseline == "moving-average":
            before = np.nanmean(totals) if self.mean_return is None else self.mean_return
            self.mean_return = float(MOVING_AVERAGE * before + (1 - MOVING_AVERAGE) * np.nanmean(totals))
            return np.full(len(totals), before)
        return np.zeros(len(totals))

    def _update(self, texts: list[GeneratedText], returns: list[NDArray[np.float64]]) -> None:
        """Take one gradient step on all texts, accumulated over passes of about `batch_size` tokens."""
        pairs = zip(texts, [g - b for g, b in zip(returns, self._baselines(returns), strict=True)], strict=True)
        kept = [(text, advantage) for text, advantage in pairs if np.isfinite(advantage).all()]
        if not kept:
            return
        texts, advantages = [text for text, _ in kept], [advantage for _, advantage in kept]
        n_tokens = sum(map(len, advantages))
        scale = 1.0
        if self.normalize_advantage and self.baseline != "learned":
            scale = 1.0 / (float(np.concatenate(advantages).std()) + 1e-8)
        self.policy.set_training_mode(True)
        self.policy.optimizer.zero_grad()
        policy_loss = value_loss = entropy_sum = 0.0
        for part in self._parts(texts):
            batch = pack([(texts[i].prompt_ids, texts[i].action_ids) for i in part]).to(self.device)
            values, log_prob, entropy = self.policy.evaluate_actions(batch, batch.actions)
            advantage = torch.as_tensor(np.concatenate([advantages[i] for i in part]), dtype=torch.float32, device=self.device)
            loss_v = torch.zeros((), device=self.device)
            if self.baseline == "learned":
                loss_v = torch.nn.functional.mse_loss(values, advantage, reduction="sum") / n_tokens
                advantage = advantage - values.detach()
            loss_p = -(scale * advantage * log_prob).sum() / n_tokens
            loss = loss_p + self.vf_coef * loss_v
            loss.backward()  # type: ignore[no-untyped-call]
            policy_loss, value_loss = policy_loss + loss_p.item(), value_loss + loss_v.item()
            entropy_sum += entropy.sum().item()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        self.policy.set_training_mode(False)
        self.logger.record("train/policy_gradient_loss", policy_loss)
        self.logger.record("train/value_loss", value_loss)
        self.logger.record("train/entropy_loss", -entropy_sum / n_tokens)

    def _parts(self, texts: list[GeneratedText]) -> Iterator[list[int]]:
        part, tokens = [], 0
        for i, text in enumerate(texts):
            part.append(i)
            tokens += len(text.action_ids)
            if tokens >= self.batch_size:
                yield part
                part, tokens = [], 0
        if part:
            yield part

    def state(self) -> dict[str, Any]:
        """Return the state with the agent's own generator and moving average."""
        return {**super().state(), "rng": self.rng.bit_generator.state, "mean_return": self.mean_return}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        super().load_state(state)
        self.rng.bit_generator.state = state["rng"]
        self.mean_return = state["mean_return"]
