"""Rewards: the contract, and the rewards that are made of others."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Cached": "cache",
    "Clip": "composition",
    "Composite": "composition",
    "Ensemble": "composition",
    "LengthPenalty": "composition",
    "NonEmpty": "composition",
    "Normalize": "composition",
    "Scale": "composition",
    "ScoreCache": "cache",
    "Served": "served",
    "Serving": "serving",
    "Shaping": "shaping",
    "make_reward": "reward",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a name's module when it is first asked for: the modules import each other through this package."""
    if name in _HOMES:
        return getattr(import_module(f"textgym.rewards.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'textgym.rewards' has no attribute {name!r}")
