"""The rewards that are made of others: "clip", "scale", "normalize", "ensemble", "non-empty", "length-penalty", "shaping", "cached", "served"."""

from typing import Any

import textgym


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the combining rewards, so that texts such as "clip(human-rating, -2, 2)" can name them."""
    from textgym.rewards.cache import Cached
    from textgym.rewards.composition import Clip, Ensemble, LengthPenalty, NonEmpty, Normalize, Scale
    from textgym.rewards.served import Served
    from textgym.rewards.shaping import Shaping

    register("clip", Clip)
    register("scale", Scale)
    register("normalize", Normalize)
    register("ensemble", Ensemble)
    register("non-empty", NonEmpty)
    register("length-penalty", LengthPenalty)
    register("shaping", Shaping)
    register("cached", Cached)
    register("served", Served)
