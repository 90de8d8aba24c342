"""Selection: best of n from the untrained language model's texts, by a proxy, and what the gold model says of those chosen."""

import json
import math

import numpy as np

from textgym.agent import make_agent
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.files import write_text
from textgym.mdp import TokenMDP
from textgym.policies.generation import generate
from textgym.reward_modeling.models.fitted_reward import FittedReward, scores_of_models
from textgym.reward_modeling.overoptimization.config import SINGLE, WAYS, OveroptimizationConfig
from textgym.reward_modeling.overoptimization.curve import Curve, curve_with_form
from textgym.reward_modeling.overoptimization.fitted_models import members_of
from textgym.reward_modeling.overoptimization.run_folder import RunFolder, read
from textgym.reward_modeling.overoptimization.scaling_forms import best_of_n, kl_of_best_of_n
from textgym.rewards.combination import combine

ROW_BATCH = 256


def write_samples(config: OveroptimizationConfig, folder: RunFolder, seed: int) -> None:
    """Write the untrained model's texts for the prompts of a seed, which are no other seed's: seeds stay independent replicates."""
    if folder.samples(seed).exists():
        return
    agent = make_agent("base", config.task, n_envs=ROW_BATCH)
    running = agent.env.mdp
    mdp = TokenMDP(running.task, running.vocabulary, running.reward, ROW_BATCH, "validation", running.max_new_tokens)
    if config.prompts * config.seeds > mdp.n_prompts:
        raise InvalidArgumentError(
            f"{config.seeds} seeds of {config.prompts} prompts each need {config.prompts * config.seeds} validation prompts, "
            f"and {config.task} has {mdp.n_prompts}; take fewer"
        )
    start = (seed - config.first_seed) * config.prompts
    chosen = np.random.default_rng(config.first_seed).permutation(mdp.n_prompts)[start : start + config.prompts]
    texts = generate(agent.policy, mdp, np.repeat(chosen, config.samples).tolist(), np.random.default_rng(seed))
    write_text(folder.samples(seed), json.dumps([[text.info["prompt"], text.info["continuation"]] for text in texts]))


def score_samples(config: OveroptimizationConfig, folder: RunFolder, seed: int) -> None:
    """Write the samples' gold scores and those of every proxy of the seed: each is computed once and serves every n."""
    if folder.scores(seed).exists():
        return
    episodes = [Episode(prompt, continuation) for prompt, continuation in read(folder.samples(seed))]
    paths = [folder.proxy(size, seed, member) for size in config.sizes for member in range(1 + config.members)]
    found = scores_of_models([FittedReward(str(path)) for path in paths], [episode.text for episode in episodes])
    scores = {"gold": FittedReward(str(folder.gold)).score(episodes).tolist()}
    scores |= {path.name: row.tolist() for path, row in zip(paths, found, strict=True)}
    write_text(folder.scores(seed), json.dumps(scores))


def selection_curves(config: OveroptimizationConfig, folder: RunFolder) -> tuple[Curve, ...]:
    """Return one curve for each size and way, over n = 1, 2, 4, ..."""
    ns = [2**i for i in range(int(math.log2(config.samples)) + 1)]
    kl = np.tile([kl_of_best_of_n(n) for n in ns], (config.seeds, 1))
    by_seed = []
    for seed in config.seed_numbers:
        read_scores = read(folder.scores(seed))
        by_seed.append({name: np.array(values).reshape(config.prompts, config.samples) for name, values in read_scores.items()})
    curves = []
    for size in config.sizes:
        for how in WAYS:
            proxy, gold = [], []
            for seed, scores in zip(config.seed_numbers, by_seed, strict=True):
                members = np.stack([scores[folder.proxy(size, seed, m).name] for m in members_of(config, how)])
                mixed = members[0] if how == SINGLE else combine(members, how, config.coef)  # type: ignore[arg-type]  # one of COMBINATIONS
                proxy.append([best_of_n(mixed, mixed, n).mean() for n in ns])
                gold.append([best_of_n(mixed, scores["gold"], n).mean() for n in ns])
            curves.append(curve_with_form(size, how, kl, np.array(proxy), np.array(gold), "best-of-n"))
    return tuple(curves)
