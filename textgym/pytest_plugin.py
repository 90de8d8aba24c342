"""The pytest plugin of textgym: the fixture `check_reward`, the conformance checks in an author's own test-suite.

def test_shout_is_sound(check_reward):
    check_reward("shout")
"""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def check_reward() -> Callable[..., Any]:
    """Return a function that takes what `textgym.make_reward` takes, and fails the test with one line per check that failed."""
    from textgym.rewards.conformance import check_reward as run_checks

    def check(spec: Any, **options: Any) -> Any:
        results = run_checks(spec, **options)
        failed = [f"{result.name}: {result.detail}" for result in results if result.status == "failed"]
        if failed:
            name = spec if isinstance(spec, str) else getattr(spec, "__name__", type(spec).__name__)
            pytest.fail(f"reward {name!r}: {len(failed)} of {len(results)} checks failed\n" + "\n".join(failed), pytrace=False)
        return results

    return check
