"""Training against a proxy: an agent is pushed away from the untrained language model, and gold and proxy are measured on the way."""

import json
from contextlib import suppress
from typing import Any

import numpy as np

from textgym.agent import make_agent
from textgym.episode import Episode
from textgym.experiments.evaluate import evaluate
from textgym.files import write_text
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.overoptimization.config import WAYS, OveroptimizationConfig
from textgym.reward_modeling.overoptimization.curve import Curve, at_levels, curve_with_form
from textgym.reward_modeling.overoptimization.fitted_models import pushed_up
from textgym.reward_modeling.overoptimization.run_folder import RunFolder, read


class _FarEnoughError(Exception):
    """The policy is `max_kl` away."""


def train_against(config: OveroptimizationConfig, folder: RunFolder, size: int, how: str, seed: int) -> None:
    """Train one agent until its budget is spent or it is `max_kl` away; write its measurements, from the untrained model on.

    A measurement is {"tokens", "kl" (nats per text), "proxy", "gold" (means), "texts" (prompt and continuation, each)}.
    """
    path = folder.training(size, how, seed)
    if path.exists():
        return
    settings = {"kl_coef": 0.0, **(config.settings or {})}
    if config.learning_rate is not None:
        settings.setdefault("learning_rate", config.learning_rate)
    agent = make_agent(config.agent, config.task, reward=pushed_up(config, folder, size, seed, how), seed=seed, **settings)
    reference = agent.make_reference()
    measured: list[dict[str, Any]] = []

    def measure() -> None:
        seen = evaluate(agent, "validation", config.validation_prompts, seed, "", reference)
        summary = seen.summary()
        kl = max(0.0, summary["kl"] * summary["length"]) if measured else 0.0  # the untrained model is where it starts
        texts = [list(pair) for pair in zip(seen.prompts, seen.continuations, strict=True)]
        measured.append({"tokens": agent.n_tokens, "kl": kl, "proxy": summary["reward"], "texts": texts})

    def after_iteration(_: Any) -> None:
        if agent.n_tokens >= config.tokens or agent.n_tokens >= len(measured) * config.tokens / config.evaluations:
            measure()
            if measured[-1]["kl"] >= config.max_kl:
                raise _FarEnoughError

    measure()
    agent.on_iteration = after_iteration
    with suppress(_FarEnoughError):
        agent.learn(config.tokens)
    different = list(dict.fromkeys((p, c) for point in measured for p, c in point["texts"]))  # an agent that has collapsed repeats itself
    scores = FittedReward(str(folder.gold)).score([Episode(*text) for text in different])
    of_text = dict(zip(different, scores.tolist(), strict=True))
    for point in measured:
        point["gold"] = float(np.mean([of_text[p, c] for p, c in point["texts"]]))
    write_text(path, json.dumps(measured))


def training_curves(config: OveroptimizationConfig, folder: RunFolder) -> tuple[Curve, ...]:
    """Return one curve for each size and way, read off at even steps of √KL: seeds move at different speeds."""
    levels = config.max_kl * np.linspace(0, 1, config.points) ** 2
    curves = []
    for size in config.sizes:
        for how in WAYS:
            runs = [read(folder.training(size, how, seed)) for seed in config.seed_numbers]
            found = [at_levels(levels, *(np.array([m[key] for m in run]) for key in ("kl", "proxy", "gold"))) for run in runs]
            kl, proxy, gold = np.stack(found, axis=1)
            curves.append(curve_with_form(size, how, kl, proxy, gold, "rl"))
    return tuple(curves)
