"""Evaluation: an agent's texts on held-out prompts, scored by the task reward, an independent one and the reference model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from textgym.agent import Agent
from textgym.classification import answer_figures
from textgym.episode import Episode
from textgym.mdp import TokenMDP
from textgym.policies.reference import ReferenceModel
from textgym.rewards.protocol import RewardSpec
from textgym.rewards.reward import make_reward


@dataclass(frozen=True)
class Evaluation:
    """What an agent wrote on held-out prompts and how it was judged.

    Attributes:
        prompts, continuations: The texts.
        rewards: Task reward per text; nan where the reward was to drop an episode that it could not score.
        gold: Independent score per text; empty without one.
        kl: KL(policy ‖ reference), mean over tokens of log π − log π_ref, nats; nan for texts whose own log-probabilities nobody knows.
        perplexity: exp of the mean negative log-probability per token under the reference.
        distinct_1, distinct_2: Different words / word pairs over all words / pairs (Li et al. 2016, arXiv:1510.03055).
        length: Tokens per text.
        stopped: Share of texts that ended by themselves.
        correct: Per text, 1 where it names the right label, else 0; empty for a task without labels.
        classification: See `textgym.classification.answer_figures`; empty for a task without labels.
    """

    prompts: list[str]
    continuations: list[str]
    rewards: list[float]
    gold: list[float]
    kl: float
    perplexity: float
    distinct_1: float
    distinct_2: float
    length: float
    stopped: float
    correct: list[float] = field(default_factory=list)
    classification: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        """Return the means, without the texts."""
        numbers = {k: v for k, v in asdict(self).items() if isinstance(v, float)}
        return {
            "reward": _mean(self.rewards),
            "gold": _mean(self.gold),
            "dropped": float(np.isnan(self.rewards).sum()),
            **numbers,
            **self.classification,
        }


def evaluate(
    agent: Agent, split: str, n_prompts: int, seed: int, gold: "RewardSpec" = "", reference: ReferenceModel | None = None
) -> Evaluation:
    """Let an agent continue held-out prompts, once each, with common random numbers.

    Args:
        agent: Any agent.
        split: "validation" or "test".
        n_prompts: How many prompts, at most all of the split. The choice depends on `split` alone.
        seed: Of the samples; agents evaluated with equal seeds get equal random numbers.
        gold: The independent reward, or its name; "" for none.
        reference: Frozen model for KL and perplexity; None leaves them nan.
    """
    running = agent.env.mdp
    mdp = TokenMDP(running.task, running.vocabulary, running.reward, min(n_prompts, 64), split, running.max_new_tokens, drop_failed=True)
    chosen = np.random.default_rng(0).permutation(mdp.n_prompts)[:n_prompts].tolist()
    texts = agent.write(mdp, chosen, np.random.default_rng(seed))
    prompts = [t.info["prompt"] for t in texts]
    continuations = [t.info["continuation"] for t in texts]
    gold_scores: list[float] = []
    if gold:
        gold_scores = make_reward(gold).score([Episode(p, c) for p, c in zip(prompts, continuations, strict=True)]).tolist()
    kl = perplexity = float("nan")
    if reference is not None:
        log_probs = np.concatenate([t.log_probs for t in texts]).astype(np.float64)
        theirs = reference.log_probs([(t.prompt_ids, t.action_ids) for t in texts], agent.policy.rule, mdp.allowed_mask).astype(np.float64)
        kl, perplexity = float((log_probs - theirs).mean()), float(np.exp(-theirs.mean()))
    labels = running.task.labels
    right = [t.info["label"] for t in texts] if labels else []
    return Evaluation(
        prompts,
        continuations,
        [float(t.rewards.sum()) for t in texts],
        gold_scores,
        kl,
        perplexity,
        distinct(continuations, 1),
        distinct(continuations, 2),
        float(np.mean([len(t.action_ids) for t in texts])),
        float(np.mean([t.info["finish_reason"] == "stop" for t in texts])),
        [float(c.strip() == r) for c, r in zip(continuations, right, strict=True)] if labels else [],
        answer_figures(labels, continuations, right) if labels else {},
    )


def _mean(scores: Sequence[float]) -> float:
    """Return the mean of the scores that there are; nan for none."""
    found = np.array(scores)[np.isfinite(scores)] if len(scores) else np.array([])
    return float(found.mean()) if found.size else float("nan")


def distinct(texts: Sequence[str], n: int) -> float:
    """Return the share of different word n-grams among all of them; 0 if there are none."""
    grams: list[Any] = []
    for text in texts:
        words = text.lower().split()
        grams += zip(*(words[i:] for i in range(n)), strict=False)
    return len(set(grams)) / len(grams) if grams else 0.0
