"""The reward "discriminator": what `textgym reward discriminate` wrote, given by its folder."""

from typing import Any

import textgym
from textgym.imitation.discriminator_reward import DiscriminatorReward


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("discriminator", DiscriminatorReward)
