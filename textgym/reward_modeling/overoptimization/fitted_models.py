"""Models of an over-optimisation run: the gold model and the proxies, fitted to halves that share neither texts nor raters."""

import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.files import write_text
from textgym.reward_modeling.data.bootstrap import bootstrapped, whole_scale
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.near_duplicates import normalised
from textgym.reward_modeling.data.splits import cluster_names
from textgym.reward_modeling.fitting.adversarial import HardeningSettings, harden
from textgym.reward_modeling.fitting.fit import fit_reward_model
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.overoptimization.config import SINGLE, OveroptimizationConfig
from textgym.reward_modeling.overoptimization.run_folder import RunFolder

VALIDATION_TEXTS = 200  # by which the best epoch of a proxy is chosen


def halves(judgements: "JudgementSet[Any]") -> tuple[JudgementSet[RatedText], JudgementSet[RatedText]]:
    """Return the gold model's and the proxies' judgements: two sets without a common text, each rated by another half of the raters.

    Texts that differ in case and punctuation alone are one text. Raters are halved by name; where they have none, those of each text are.
    """
    if judgements.kind != "ratings":
        raise InvalidArgumentError(f"over-optimisation needs ratings, got {judgements.kind}")
    parts: tuple[list[RatedText], list[RatedText]] = ([], [])
    for item in judgements.items:
        if len(item.ratings) >= 2 and item.split != "test":
            code = _code(normalised(item.prompt + item.text))
            if item.raters:
                kept = np.array([rating for rating, name in zip(item.ratings, item.raters, strict=True) if _code(name) % 2 == code % 2])
            else:
                kept = np.random.default_rng(code).permutation(item.ratings)[code % 2 :: 2]
            if len(kept):
                parts[code % 2].append(replace(item, rating=float(kept.mean()), ratings=tuple(kept.tolist()), raters=()))
    if min(len(part) for part in parts) < 40:
        raise InvalidArgumentError("over-optimisation needs texts with individual ratings, two or more each; found too few")
    return replace(judgements, items=tuple(parts[0])), replace(judgements, items=tuple(parts[1]))


def _code(text: str) -> int:
    return zlib.crc32(text.encode())


def fit_gold(config: OveroptimizationConfig, folder: RunFolder) -> None:
    """Fit the gold model, and harden it."""
    if folder.gold_figures.exists():
        return
    judgements = halves(load_judgements(config.judgements))[0]
    if config.gold_rounds:
        low, high = whole_scale(judgements)["low"], whole_scale(judgements)["high"]
        neutral = float(np.mean([item.rating <= (low + high) / 2 for item in judgements.split("train").items]))
        settings = HardeningSettings(rounds=config.gold_rounds, measures=1, ceilings=(neutral,))
        hardened = harden(judgements, config.task, folder.gold, scorer=config.gold_scorer, settings=settings)
        pearson = hardened.rounds[hardened.chosen].pearson
    else:
        fitted = fit_reward_model(judgements, scorer=config.gold_scorer)
        fitted.reward.save(folder.gold)
        pearson = fitted.best["pearson"]
    write_text(folder.gold_figures, json.dumps({"pearson": float(pearson)}))


def fit_proxies(config: OveroptimizationConfig, folder: RunFolder, size: int, seed: int) -> None:
    """Fit the single proxy of a draw, and its bootstraps."""
    data = halves(load_judgements(config.judgements))[1]
    rng = np.random.default_rng([seed, size])
    train, validation = data.split("train").items, data.split("validation").items
    drawn = replace(data, items=tuple(train[row] for row in rng.choice(len(train), size, replace=False).tolist()), **whole_scale(data))
    names = cluster_names(drawn)
    for member in range(1 + config.members):
        # drawn also where it is fitted already: the next one's draw follows
        part = drawn if member == 0 else bootstrapped(drawn, rng, names)
        path = folder.proxy(size, seed, member)
        if not FittedReward.reads_folder(path):
            items = (*part.items, *validation[:VALIDATION_TEXTS])
            fit_reward_model(replace(part, items=items), scorer=config.proxy_scorer).reward.save(path)


def members_of(config: OveroptimizationConfig, how: str) -> range:
    """Return the numbers of the proxies that are pushed up together."""
    return range(1) if how == SINGLE else range(1, 1 + config.members)


def pushed_up(config: OveroptimizationConfig, folder: RunFolder, size: int, seed: int, how: str) -> FittedReward | FittedEnsemble:
    """Return the reward of a run: the one proxy, or an ensemble of bootstraps."""
    models = [FittedReward(str(folder.proxy(size, seed, member))) for member in members_of(config, how)]
    return models[0] if how == SINGLE else FittedEnsemble.of(models, how, config.coef)  # type: ignore[arg-type]  # one of COMBINATIONS
