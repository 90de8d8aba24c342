"""Fitting a discriminator: an expert's texts against those of a language model, watched on held-out texts."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textgym.agent import make_agent
from textgym.device import check_device
from textgym.errors import InvalidArgumentError
from textgym.imitation.discriminator_reward import DiscriminatorReward
from textgym.imitation.expert_texts import bare_environment, expert_tokens, unscored
from textgym.imitation.learner import DiscriminatorLearner, DiscriminatorSettings
from textgym.imitation.token_discriminator import TokenDiscriminator
from textgym.lm.language_model import load_language_model
from textgym.policies.generation import GeneratedText, replay
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, LabelledText
from textgym.reward_modeling.fitting.fit import Show, train_and_validation
from textgym.reward_modeling.metrics import Metrics, area_under_curve
from textgym.reward_modeling.models.fitted_reward import write_history
from textgym.reward_modeling.objectives import EXPERT, POLICY
from textgym.reward_modeling.reward_folder import refuse_foreign
from textgym.tasks import Prompt, Task
from textgym.tokenization import load_vocabulary

Report = Callable[[Metrics], None]
TEXTS_PER_STEP = 32  # of either side
ENDING = Task("expert-texts", {})  # texts end with EOS or the budget


def policy_texts(experts: "JudgementSet[Any]", model: str, max_new_tokens: int, seed: int, device: str = "cpu") -> list[GeneratedText]:
    """Return one text that a language model wrote after the prompt of each expert text, in order.

    Args:
        experts: Whose prompts are continued.
        model: A registered name, a directory (an agent's too), a `.gguf` file or a hub id.
        max_new_tokens: Token budget.
        seed: Of the samples.
        device: Where the model runs.
    """
    task = Task("expert-texts", {"train": [item.prompt for item in experts.items]}, model, max_new_tokens, reward=unscored)
    writer = make_agent("base", task, model=model, device=device)
    return writer.write(writer.env.mdp, range(len(experts)), np.random.default_rng(seed))


def discrimination_set(
    experts: "JudgementSet[Any]", model: str, max_new_tokens: int, seed: int, device: str = "cpu"
) -> JudgementSet[LabelledText]:
    """Return expert texts and a language model's texts with the same prompts, labelled, for a discriminator of whole texts.

    Both are cut at the budget; blank texts are left out. A text of the model is in the split of the expert text whose prompt it has.
    """
    everyone = range(len(experts))
    environment = bare_environment([Prompt(item.prompt) for item in experts.items], ENDING, load_vocabulary(model), max_new_tokens)
    theirs = replay(environment, everyone, [item.text for item in experts.items])
    items = [
        LabelledText(
            id=f"{label}-{item.id}",
            prompt=item.prompt,
            text=text.info["continuation"],
            label=label,
            split=item.split,
            group=item.group or item.id,
        )
        for label, texts in ((EXPERT, theirs), (POLICY, policy_texts(experts, model, max_new_tokens, seed, device)))
        for item, text in zip(experts.items, texts, strict=True)
        if text.info["continuation"].strip()
    ]
    return JudgementSet("labels", tuple(items), classes=(POLICY, EXPERT))


def fit_discriminator(
    experts: "JudgementSet[ExpertText]",
    out: str | Path,
    *,
    model: str = "reviews",
    settings: DiscriminatorSettings | None = None,
    max_new_tokens: int = 24,
    epochs: int = 5,
    patience: int = 2,
    seed: int = 0,
    device: str = "cpu",
    show: Show | None = None,
    report: Report | None = None,
) -> tuple[DiscriminatorReward, tuple[Metrics, ...]]:
    """Fit a discriminator over prefixes and tokens; the folder `out` is then a reward by its path.

    Args:
        experts: Of kind "texts", with training and validation ones; where no split was drawn, a tenth validates.
        out: The folder, written whenever the area under the curve of whole held-out texts improves.
        model: The language model whose texts are to be told apart, and from whose copy the discriminator begins.
        settings: How it is made and fitted.
        max_new_tokens: Token budget of a text, and the horizon of absorbing states.
        epochs: At most so many passes over the training texts; the model's texts are sampled anew for each.
        patience: Epochs without improvement before fitting stops.
        seed: Of everything random.
        device: Where it runs.
        show: Progress: called with (texts done, of so many, note).
        report: Called with each epoch's figures; they are in the folder's `history.json` by then.

    Returns:
        The reward of the best epoch, and every epoch's figures: "epoch", "seconds", "train_loss", and on held-out texts "auc" (of whole
        texts by their mean log-odds), "token_auc", "accuracy" (of tokens).
    """
    if epochs < 1 or patience < 1:
        raise InvalidArgumentError(f"epochs and patience must be at least 1, got {epochs} and {patience}")
    settings = settings or DiscriminatorSettings()
    check_device(device)
    refuse_foreign(Path(out))
    train, held_out = train_and_validation(experts)
    vocabulary = load_vocabulary(model)
    expert = expert_tokens(train, ENDING, vocabulary, max_new_tokens)
    watched = expert_tokens(held_out, ENDING, vocabulary, max_new_tokens), policy_texts(held_out, model, max_new_tokens, seed + 1, device)
    torch.manual_seed(seed)  # torch's initialisers draw from the global generator alone
    rng = np.random.default_rng(seed)
    network = settings.network(load_language_model(model, device=device))
    learner = DiscriminatorLearner(network, settings, max_new_tokens)
    description = {
        "model": model,
        "horizon": max_new_tokens if settings.absorbing else 0,
        "settings": asdict(settings),
        "texts": {"train": len(expert), "validation": len(watched[0])},
    }
    started, history, best, waited = time.perf_counter(), list[Metrics](), -math.inf, 0
    for epoch in range(1, epochs + 1):
        if show is not None:
            show((epoch - 1) * len(expert), epochs * len(expert), f"epoch {epoch}  sampling")
        policy = policy_texts(train, model, max_new_tokens, int(rng.integers(2**31)), device)
        losses = []
        order, against = rng.permutation(len(expert)), rng.permutation(len(policy))
        for start in range(0, min(len(order), len(against)), TEXTS_PER_STEP):
            part = slice(start, start + TEXTS_PER_STEP)
            losses.append(learner.step([expert[i] for i in order[part]], [policy[i] for i in against[part]], rng)["loss"])
            if show is not None:
                done = min(len(order), start + TEXTS_PER_STEP)
                show((epoch - 1) * len(expert) + done, epochs * len(expert), f"epoch {epoch}  loss {losses[-1]:.3f}")
        figures = held_out_figures(network, *watched)
        seconds = round(time.perf_counter() - started, 2)
        history.append({"epoch": epoch, "seconds": seconds, "train_loss": float(np.mean(losses)), **figures})
        if figures["auc"] > best:
            best, waited = figures["auc"], 0
            told = {**description, "metrics": {k: v for k, v in history[-1].items() if math.isfinite(v)}}
            DiscriminatorReward.write(network, vocabulary, Path(out), told)
        else:
            waited += 1
        finished = waited >= patience or epoch == epochs
        write_history(Path(out), history, finished)
        if report is not None:
            report(history[-1])
        if finished:
            break
    return DiscriminatorReward(str(out), device=device), tuple(history)


def held_out_figures(network: TokenDiscriminator, expert: Sequence[GeneratedText], policy: Sequence[GeneratedText]) -> Metrics:
    """Return how well texts are told apart: "auc" of whole texts by their mean log-odds, "token_auc", and "accuracy" of tokens.

    0.5 each is chance: the accuracy is a mean over the two sides.
    """
    theirs, ours = network.log_odds(expert), network.log_odds(policy)
    tokens: tuple[NDArray[Any], NDArray[Any]] = np.concatenate(theirs), np.concatenate(ours)
    return {
        "auc": area_under_curve(np.array([odds.mean() for odds in theirs]), np.array([odds.mean() for odds in ours])),
        "token_auc": area_under_curve(*tokens),
        "accuracy": float((tokens[0] > 0).mean() + (tokens[1] <= 0).mean()) / 2,
    }
