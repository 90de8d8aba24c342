"""GRPO: group-relative policy optimisation, with its later corrections Dr. GRPO and DAPO."""

from typing import Any, Literal

import numpy as np
from torch import Tensor

from textgym.errors import InvalidArgumentError
from textgym.learning.clipped_surrogate import clipped_surrogate
from textgym.learning.group_agent import Floats, GroupAgent
from textgym.learning.micro_batches import MicroBatch
from textgym.learning.returns import group_relative
from textgym.learning.text_groups import differing_groups, groups_of, total_rewards
from textgym.policies.generation import GeneratedText
from textgym.policies.kl import kl_estimate
from textgym.tasks import Task

LossType = Literal["grpo", "dr-grpo", "dapo"]
LOSS_TYPES = ("grpo", "dr-grpo", "dapo")
KL_PLACES = ("loss", "reward")
DAPO_CLIP_RANGE_HIGH = 0.28


class GRPOAgent(GroupAgent):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300): PPO's clipped loss without a value function.

    Every text of a prompt's group gets one advantage for all its tokens, Â_i = (R_i − mean(R)) / std(R), and the loss of a token is
    −min(r Â, clip(r, 1 − ε, 1 + ε_high) Â) + β (π_ref/π − log(π_ref/π) − 1), with r = π/π_old. `loss_type` says how tokens are weighed:
    "grpo" takes each text's mean, then the mean of the texts; "dr-grpo" (Liu et al. 2025, arXiv:2503.20783) divides the sum by texts times
    token budget, and leaves std(R) out, so that neither short texts nor easy prompts weigh more; "dapo" (Yu et al. 2025, arXiv:2503.14476)
    takes the mean over all tokens, ε_high = 0.28, and draws other prompts for groups whose texts all got the same reward.

    Args:
        task: As for `textgym.make_agent`.
        loss_type: "grpo", "dr-grpo" or "dapo".
        kl_in: Where the KL penalty β = `kl_coef` is: in the "loss" as above, or as `kl_coef` · log(π/π_ref) off the "reward".
        clip_range_high: ε_high; by default `clip_range`, with "dapo" 0.28.
        dynamic_sampling: Leave groups out that the task rewards equally, and draw others; by default with "dapo".
        max_draws: Times that an iteration writes texts at most, with `dynamic_sampling`.
        overlong_tokens: The last so many tokens of the budget cost reward, linearly up to 1 at its end (DAPO's soft punishment); 0 for none.
        **settings: Those of `textgym.learning.group_agent.GroupAgent` (`group_size`, `n_epochs`, `n_minibatches`, `clip_range`),
            `textgym.learning.text_agent.TextAgent` (`learning_rate`, `kl_coef`, ...) and `textgym.agent.Agent`.
    """

    def __init__(
        self,
        task: str | Task,
        loss_type: LossType = "grpo",
        kl_in: Literal["loss", "reward"] = "loss",
        clip_range_high: float | None = None,
        dynamic_sampling: bool | None = None,
        max_draws: int = 4,
        overlong_tokens: int = 0,
        **settings: Any,
    ) -> None:
        if loss_type not in LOSS_TYPES:
            raise InvalidArgumentError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, got {loss_type!r}")
        if kl_in not in KL_PLACES:
            raise InvalidArgumentError(f"kl_in must be one of {', '.join(KL_PLACES)}, got {kl_in!r}")
        if max_draws < 1:
            raise InvalidArgumentError(f"max_draws must be at least 1, got {max_draws}")
        super().__init__(task, **settings)
        if not 0 <= overlong_tokens <= self.env.mdp.max_new_tokens:
            raise InvalidArgumentError(f"overlong_tokens must be 0 to the budget {self.env.mdp.max_new_tokens}, got {overlong_tokens}")
        default_high = DAPO_CLIP_RANGE_HIGH if loss_type == "dapo" else self.clip_range
        self.clip_range_high = default_high if clip_range_high is None else clip_range_high
        if self.clip_range_high < 0:
            raise InvalidArgumentError(f"clip_range_high must be at least 0, got {clip_range_high}")
        self.loss_type, self.kl_in, self.max_draws, self.overlong_tokens = loss_type, kl_in, max_draws, overlong_tokens
        self.dynamic_sampling = loss_type == "dapo" if dynamic_sampling is None else dynamic_sampling

    def iterate(self) -> int:
        """Write groups of texts, compare within each, take clipped steps."""
        written: list[GeneratedText] = []
        kept: list[GeneratedText] = []
        scores: list[Floats] = []
        reference: list[Floats] = []
        kls: list[float] = []
        for _ in range(self.max_draws if self.dynamic_sampling else 1):
            texts = self.write_groups(self.group_size)
            theirs = self.reference_log_probs(texts) if self.reference is not None else None
            rewards, kl = self.penalised_rewards(texts, theirs)
            if self.kl_in == "loss":
                rewards = [t.rewards for t in texts]
            totals = np.array([r.sum() for r in rewards]) - self._overlong(texts)
            written += texts
            kls.append(kl)
            # by the task's own reward: a penalty tells texts apart that the task does not
            size = self.group_size
            for group in differing_groups(total_rewards(texts), size) if self.dynamic_sampling else groups_of(len(texts), size):
                kept += texts[group]
                reference += [] if theirs is None else theirs[group]
                scores.append(totals[group])
            if len(kept) >= self.env.num_envs:
                break
        kept, scores = kept[: self.env.num_envs], scores[: self.env.num_envs // self.group_size]
        figures = {"kept_groups": len(scores) * self.group_size / len(written)} if self.dynamic_sampling else {}
        self.log_texts(written, float(np.mean(kls)), **figures)
        if kept:
            columns = {"old": [t.log_probs for t in kept]}
            if self.kl_in == "loss" and self.kl_coef > 0:
                columns["reference"] = [a.astype(np.float32) for a in reference[: len(kept)]]
            self.update(kept, self.advantages(np.concatenate(scores)), columns)
        return sum(len(t.action_ids) for t in written)

    def advantages(self, scores: Floats) -> Floats:
        """Return scores less their group's mean, over its standard deviation but with "dr-grpo"."""
        return group_relative(scores, self.group_size, scale=self.loss_type != "dr-grpo")

    def loss(self, batch: MicroBatch, log_prob: Tensor, advantages: Tensor, n_texts: int, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Return the clipped loss with the penalty, weighed as `loss_type` says."""
        advantage = advantages[batch.text_of_token]
        token_loss, clipped = clipped_surrogate(log_prob - batch.columns["old"], advantage, self.clip_range, self.clip_range_high)
        if "reference" in batch.columns:
            token_loss = token_loss + self.kl_coef * kl_estimate(log_prob, batch.columns["reference"], "k3")
        if self.loss_type == "grpo":
            lengths = batch.sum_by_text(log_prob.new_ones(len(batch)))
            return (batch.sum_by_text(token_loss) / lengths).sum() / n_texts, clipped
        return token_loss.sum() / (n_tokens if self.loss_type == "dapo" else n_texts * self.env.mdp.max_new_tokens), clipped

    def _overlong(self, texts: list[GeneratedText]) -> Floats:
        """Return what each text's length costs, (n,), 0 to 1."""
        over = np.array([len(t.action_ids) for t in texts], np.float64) - (self.env.mdp.max_new_tokens - self.overlong_tokens)
        return np.maximum(over, 0.0) / max(1, self.overlong_tokens) if self.overlong_tokens else np.zeros(len(texts))
