"""Waiting for what another thread or process does, with a bound that a busy machine does not reach."""

import time
from collections.abc import Callable


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds, at most so many seconds; say whether it does."""
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return held
