"""OveroptimizationConfig: what an over-optimisation run fits, pushes up and measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textgym.errors import InvalidArgumentError
from textgym.rewards.combination import Combination

SINGLE = "single"
COMBINATIONS: tuple[Combination, ...] = ("mean", "min", "uncertainty-weighted")
WAYS = (SINGLE, *COMBINATIONS)  # what is pushed up: one proxy, or how an ensemble of them is combined


@dataclass(frozen=True, kw_only=True)
class OveroptimizationConfig:
    """An over-optimisation run.

    Attributes:
        task: Whose prompts are continued.
        judgements: Ratings with individual raters: a registered name or a file.
        gold_scorer, proxy_scorer: Scorers of the two; the gold model sees half of the texts and half of the raters, the proxies the rest.
            They should be of different kinds: what fools one n-gram model pleases another as well. "compact" scores thousands of texts a
            second; "mlp", on sentence embeddings (extra "embedding"), is no better and a hundred. Both can be fooled by repeated praise.
        gold_rounds: Rounds in which the gold model is attacked, as by `harden`, and learns that a text which is surely nonsense is worth no more
            than the middle of the scale: a truth that can be fooled itself does not fall. Needs a task with reference texts; 0 leaves it as fitted.
        sizes: Training texts of a proxy.
        seeds: Proxies per size, each on a draw of its own and with prompts of its own in best of n; 3 or more.
        first_seed: The seeds are this one and those that follow. Settings are chosen by other seeds than those that are reported.
        members: Bootstraps of one draw that make its ensemble.
        coef: λ of "uncertainty-weighted".
        prompts, samples: Best of n: prompts of each seed, and samples of each prompt, from the untrained language model.
        agent: Registered agent of the RL part, trained without KL penalty.
        learning_rate: The agent's; None for its own, at which it hardly comes to the far side of the peak within the budget.
        tokens: Its budget per run.
        max_kl: Nats per text from the untrained model at which a run ends before its budget does.
        evaluations: How often at most a run is measured, evenly over its budget.
        points: Points of its curve, from nothing to `max_kl` in even steps of √KL.
        validation_prompts: Texts per measurement.
        settings: Further settings of the agent.
    """

    task: str = "ReviewContinuation-v0"
    judgements: str = "human-ratings"
    gold_scorer: str = "compact"
    proxy_scorer: str = "lm-linear"
    gold_rounds: int = 2
    sizes: tuple[int, ...] = (300,)
    seeds: int = 8
    first_seed: int = 0
    members: int = 4
    coef: float = 1.0
    prompts: int = 8
    samples: int = 512
    agent: str = "reinforce"
    learning_rate: float | None = 1e-3
    tokens: int = 24_000
    max_kl: float = 120.0
    evaluations: int = 16
    points: int = 12
    validation_prompts: int = 64
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        least = {
            "gold_rounds": 0,
            "seeds": 3,
            "first_seed": 0,
            "members": 2,
            "prompts": 2,
            "samples": 2,
            "tokens": 1,
            "evaluations": 2,
            "points": 3,
        }
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InvalidArgumentError(f"{name} must be at least {value}, got {getattr(self, name)}")
        if not self.max_kl > 0:
            raise InvalidArgumentError(f"max_kl must be above 0, got {self.max_kl}")
        if not self.sizes or min(self.sizes) < 20:
            raise InvalidArgumentError(f"sizes must be numbers of training texts, 20 or more each, got {self.sizes}")

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)
