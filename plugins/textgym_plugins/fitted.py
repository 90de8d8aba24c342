"""The rewards "fitted" and "fitted-ensemble": what `textgym reward fit` wrote, given by its folder."""

from typing import Any

import textgym
from textgym.reward_modeling.models.fitted_ensemble import FittedEnsemble
from textgym.reward_modeling.models.fitted_reward import FittedReward


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the rewards."""
    register("fitted", FittedReward)
    register("fitted-ensemble", FittedEnsemble)
