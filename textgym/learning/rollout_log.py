"""Rollout log: what every agent records of the texts of an iteration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.agent import Agent
from textgym.classification import answer_figures


def log_rollout(
    agent: Agent, infos: Sequence[Mapping[str, Any]], rewards: Sequence[float], lengths: Sequence[int], statistics: Mapping[str, float]
) -> None:
    """Record figures of the texts that were finished in an iteration, and what else the agent knows of it.

    Names: each reward term, its standard deviation "..._std" and, if there are several, its "..._share" of the weighted standard
    deviations, which is its part in what is learnt; "ep_rew_mean", "ep_rew_std" and "ep_len_mean" (tokens) as in stable-baselines3;
    "stopped", the share that ended by itself; "characters"; "different", the share of different texts, and "most_common", that of the most
    frequent one. For a task with labels also accuracy, precision, recall and F1 (macro).

    Args:
        agent: Its logger gets them.
        infos: Of the finished texts, as the environment gave them at the end.
        rewards: Their rewards, summed over tokens; nan for a text that the reward gave up.
        lengths: Their lengths in tokens.
        statistics: Further figures by name.
    """
    record = agent.logger.record
    if infos:
        spreads: dict[str, float] = {}
        for name in infos[0]["reward_terms"]:
            mean, spreads[name] = _mean_and_std([i["reward_terms"][name] for i in infos])
            record(f"rollout/{name}", mean)
            record(f"rollout/{name}_std", spreads[name])
        weighted = {t.name: abs(t.weight) * spreads[t.name] for t in agent.env.mdp.reward.terms if t.name in spreads}
        if len(weighted) > 1 and sum(weighted.values()) > 0:
            for name, spread in weighted.items():
                record(f"rollout/{name}_share", spread / sum(weighted.values()))
        for name, value in zip(("ep_rew_mean", "ep_rew_std"), _mean_and_std(rewards), strict=True):
            record(f"rollout/{name}", value)
        record("rollout/ep_len_mean", float(np.mean(lengths)))
        record("rollout/stopped", float(np.mean([i["finish_reason"] == "stop" for i in infos])))
        record("rollout/characters", float(np.mean([len(i["continuation"]) for i in infos])))
        texts = Counter(i["continuation"] for i in infos)
        record("rollout/different", len(texts) / len(infos))
        record("rollout/most_common", max(texts.values()) / len(infos))
        if labels := agent.task.labels:
            found = answer_figures(labels, [i["continuation"] for i in infos], [i["label"] for i in infos])
            for name in ("accuracy", "precision", "recall", "f1"):
                record(f"rollout/{name}", found[name])
    for name, value in statistics.items():
        record(f"rollout/{name}", value)


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of the finite values; nan without any."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return (float(known.mean()), float(known.std())) if known.size else (np.nan, np.nan)
