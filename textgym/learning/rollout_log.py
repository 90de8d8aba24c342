"""Rollout log: what every agent records of the texts of an iteration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.agent import Agent
from textgym.classification import answer_figures


def log_rollout(agent: Agent, infos: Sequence[Mapping[str, Any]], statistics: Mapping[str, float]) -> None:
    """Record reward terms of the finished texts, share that ended by themselves, length, share of different texts, and other figures.

    For a task with labels also accuracy, precision, recall and F1 (macro).
    """
    if infos:
        for name in infos[0]["reward_terms"]:
            values = np.array([i["reward_terms"][name] for i in infos])
            agent.logger.record(f"rollout/{name}", float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else np.nan)
        agent.logger.record("rollout/stopped", float(np.mean([i["finish_reason"] == "stop" for i in infos])))
        agent.logger.record("rollout/characters", float(np.mean([len(i["continuation"]) for i in infos])))
        agent.logger.record("rollout/different", len({i["continuation"] for i in infos}) / len(infos))
        if labels := agent.task.labels:
            found = answer_figures(labels, [i["continuation"] for i in infos], [i["label"] for i in infos])
            for name in ("accuracy", "precision", "recall", "f1"):
                agent.logger.record(f"rollout/{name}", found[name])
    for name, value in statistics.items():
        agent.logger.record(f"rollout/{name}", value)
