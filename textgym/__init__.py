"""textgym: text generation as a Gymnasium environment, with rewards that are plugins."""

from typing import Any

from textgym.envs.registration import register_environments
from textgym.episode import Episode
from textgym.errors import (
    InvalidArgumentError,
    MissingExtraError,
    PluginWarning,
    RewardError,
    RunDirectoryError,
    TemporaryRewardError,
    TextgymError,
    UnknownNameError,
)
from textgym.hookspecs import hookimpl
from textgym.plugin_manager import Family
from textgym.rewards.protocol import RewardModel, TokenRewardModel, TokenScorer
from textgym.rewards.reward import Reward, make_reward
from textgym.tasks import Prompt, Task, make_task

__version__ = "0.1.0"
__all__ = [
    "Episode",
    "Family",
    "InvalidArgumentError",
    "MissingExtraError",
    "PluginWarning",
    "Prompt",
    "Reward",
    "RewardError",
    "RewardModel",
    "RunDirectoryError",
    "Task",
    "TemporaryRewardError",
    "TextgymError",
    "TokenRewardModel",
    "TokenScorer",
    "UnknownNameError",
    "hookimpl",
    "load_agent",
    "make_agent",
    "make_reward",
    "make_task",
]


def __getattr__(name: str) -> Any:
    """Load the parts that need torch when they are first asked for."""
    if name in ("make_agent", "load_agent"):
        from textgym import agent

        return getattr(agent, name)
    raise AttributeError(f"module 'textgym' has no attribute {name!r}")


register_environments()
