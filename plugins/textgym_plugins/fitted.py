"""The reward "fitted": a reward model that `textgym reward fit` wrote, given by its folder."""

from typing import Any

import textgym
from textgym.reward_modeling.fitted_reward import FittedReward


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("fitted", FittedReward)
