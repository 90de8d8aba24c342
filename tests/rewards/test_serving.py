"""Slow and flaky rewards: bounded waiting, counted retries, a clear report, and never a score that nobody gave."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest

import textgym
from tests.waiting import within
from textgym.rewards import Clip, Normalize, Served, Serving, make_reward

EPISODES = [textgym.Episode("ask", f" {i}") for i in range(6)]
QUICK: dict[str, Any] = {"timeout": 0.15, "backoff": 0.01}


class Flaky:
    """Does the given things, one a call, then scores; counts its calls."""

    def __init__(self, *deeds: Any) -> None:
        self.deeds, self.calls = list(deeds), 0
        self._lock = threading.Lock()

    def score(self, episodes: Sequence[textgym.Episode]) -> Any:
        with self._lock:
            self.calls += 1
            deed = self.deeds.pop(0) if self.deeds else None
        if isinstance(deed, BaseException):
            raise deed
        if callable(deed):
            return deed()
        return [float(len(e.text)) for e in episodes] if deed is None else deed


class AsyncFlaky(Flaky):
    """The same as a coroutine."""

    async def score(self, episodes: Sequence[textgym.Episode]) -> Any:
        answer = super().score(episodes)
        return await answer if asyncio.iscoroutine(answer) else answer


BOTH = pytest.mark.parametrize("kind", [Flaky, AsyncFlaky])


@BOTH
@pytest.mark.parametrize(
    "deed",
    [
        ConnectionError("reset by peer"),
        KeyError("score"),
        textgym.TemporaryRewardError("busy"),
        [],
        [float("nan")],
        ["seven"],
        {"score": 1.0},
    ],
    ids=["raises", "KeyError", "busy", "too few", "nan", "no number", "no list"],
)
def test_what_may_pass_is_tried_again(kind: type[Flaky], deed: Any) -> None:
    flaky = kind(deed, deed)
    assert Served(flaky, retries=2, backoff=0.01).score(EPISODES[:1]).tolist() == [5.0]
    assert flaky.calls == 3


@BOTH
@pytest.mark.parametrize(
    ("deed", "calls", "part"),
    [
        (ConnectionError("reset\nby peer"), 3, "ConnectionError: reset by peer (tried 3 times)"),
        ([], 3, "must return 1 scores for 1 episodes, got shape (0,) (tried 3 times)"),
        ([float("nan")], 3, "returned nan"),
        (TypeError("no such argument"), 1, "TypeError: no such argument (tried 1 time)"),
        (textgym.RewardError("cannot judge this"), 1, "cannot judge this (tried 1 time)"),
        (textgym.MissingExtraError("judge", "judge"), 1, "pip install 'textgym[judge]'"),
        (StopIteration(), 3, "StopIteration"),
        (SystemExit(3), 3, "SystemExit: 3"),
    ],
    ids=["raises", "too few", "nan", "fault of the code", "the reward says so", "missing package", "StopIteration", "sys.exit"],
)
def test_what_does_not_pass_is_reported(kind: type[Flaky], deed: Any, calls: int, part: str) -> None:
    flaky = kind(*[deed] * 10)
    with pytest.raises(textgym.RewardError) as caught:
        Served(flaky, retries=2, timeout=10.0, backoff=0.01).score(EPISODES[:1])
    assert part in str(caught.value)
    assert f"reward '{kind.__name__}' failed" in str(caught.value)
    assert "episode 0 of 1: 'ask 0'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert flaky.calls == calls
    assert make_reward(AsyncFlaky()).score(EPISODES[:1]).tolist() == [5.0]  # the event loop goes on


async def ignoring_its_end() -> list[float]:
    for _ in range(300):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
    return [0.0]


async def giving_up() -> list[float]:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("kind", "hang"),
    [(Flaky, partial(time.sleep, 30)), (AsyncFlaky, partial(asyncio.sleep, 30)), (AsyncFlaky, ignoring_its_end)],
    ids=["thread", "coroutine", "coroutine that ignores being cancelled"],
)
def test_a_hang_is_waited_for_a_bounded_time(kind: type[Flaky], hang: Callable[[], Any]) -> None:
    flaky = kind(*[hang] * 10)
    start = time.monotonic()
    with pytest.raises(textgym.RewardError, match=r"no answer within 0.5 s \(tried 2 times\)"):
        Served(flaky, retries=1, timeout=0.5, backoff=0.01).score(EPISODES[:1])
    assert 1.0 <= time.monotonic() - start < 20.0
    assert flaky.calls == 2


def test_a_time_out_of_next_to_nothing_is_no_blocked_event_loop() -> None:
    def unhurried(episodes: Sequence[textgym.Episode]) -> list[float]:
        time.sleep(0.05)
        return [1.0 for _ in episodes]

    scores = Served(unhurried, timeout=1e-6, retries=0, on_failure="drop").score(EPISODES[:2])
    assert np.isnan(scores).all()


def test_a_coroutine_that_cancels_itself_is_a_failed_call() -> None:
    with pytest.raises(textgym.RewardError, match="the call was cancelled from inside"):
        Served(AsyncFlaky(*[giving_up] * 10), retries=1, backoff=0.01).score(EPISODES[:1])


def test_a_coroutine_that_blocks_the_event_loop_is_named_and_left_behind() -> None:
    async def blocking(episodes: Sequence[textgym.Episode]) -> list[float]:
        time.sleep(30.0)
        return [0.0 for _ in episodes]

    start = time.monotonic()
    with pytest.raises(textgym.RewardError, match=r"has blocked its event loop for 1 s: let it await, or make it a plain function"):
        Served(blocking, **QUICK).score(EPISODES[:1])
    assert time.monotonic() - start < 20.0
    assert make_reward(AsyncFlaky()).score(EPISODES[:1]).tolist() == [5.0]


def test_the_other_side_says_how_long_to_wait() -> None:
    flaky = Flaky(textgym.TemporaryRewardError("busy", retry_after=0.4))
    start = time.monotonic()
    Served(flaky, backoff=30.0).score(EPISODES[:1])
    assert 0.4 <= time.monotonic() - start < 20.0


def test_the_pause_doubles() -> None:
    times: list[float] = []

    def busy(episodes: Sequence[textgym.Episode]) -> list[float]:
        times.append(time.monotonic())
        raise OSError("busy")

    with pytest.raises(textgym.RewardError):
        Served(busy, retries=3, backoff=0.1).score(EPISODES[:1])
    pauses = np.diff(times)
    assert (pauses >= [0.1, 0.2, 0.4]).all()


# --- side by side ----------------------------------------------------------------------------------------------------------------


class Measured:
    """Answers when as many calls as expected have run at once; knows how many did."""

    def __init__(self, expected: int = 1) -> None:
        self.expected, self.now, self.most, self.sizes = expected, 0, 0, list[int]()
        self._lock = threading.Lock()

    def enter(self, n: int) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.sizes.append(n)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        self.enter(len(episodes))
        assert within(30, lambda: self.most >= self.expected)
        time.sleep(0.05)  # time enough for more than expected
        with self._lock:
            self.now -= 1
        return [float(e.continuation) for e in episodes]


class AsyncMeasured(Measured):
    """The same as a coroutine."""

    async def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:  # type: ignore[override]
        self.enter(len(episodes))
        while self.most < self.expected:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        self.now -= 1
        return [float(e.continuation) for e in episodes]


@pytest.mark.parametrize("kind", [Measured, AsyncMeasured])
def test_calls_run_side_by_side_with_bounded_workers(kind: type[Measured]) -> None:
    model = kind(4)
    assert Served(model, workers=4).score([textgym.Episode("", str(i)) for i in range(12)]).tolist() == list(range(12))
    assert model.most == 4
    assert model.sizes == [1] * 12


def test_batches_are_cut_as_asked() -> None:
    model = Measured()
    assert Served(model, batch_size=5).score([textgym.Episode("", str(i)) for i in range(12)]).tolist() == list(range(12))
    assert sorted(model.sizes) == [2, 5, 5]


def test_a_coroutine_reward_gets_the_whole_batch_and_may_gather() -> None:
    begun = 0

    async def one(episode: textgym.Episode) -> float:
        nonlocal begun
        begun += 1
        while begun % len(EPISODES):  # none answers before all are asked
            await asyncio.sleep(0.01)
        return float(episode.continuation)

    async def all_at_once(episodes: Sequence[textgym.Episode]) -> list[float]:
        return list(await asyncio.gather(*map(one, episodes)))

    assert make_reward(all_at_once).score(EPISODES).tolist() == [0, 1, 2, 3, 4, 5]
    assert make_reward(partial(all_at_once)).score(EPISODES).tolist() == [0, 1, 2, 3, 4, 5]
    assert make_reward(lambda episodes: all_at_once(episodes)).score(EPISODES).tolist() == [0, 1, 2, 3, 4, 5]


def test_it_works_inside_a_running_event_loop() -> None:
    async def notebook() -> list[float]:
        scores: list[float] = make_reward(AsyncFlaky()).score(EPISODES[:2]).tolist()
        return scores

    assert asyncio.run(notebook()) == [5.0, 5.0]


def test_a_model_declares_its_own_serving_and_served_overrides_it() -> None:
    model = Measured(0.05)
    model.serving = Serving(workers=2)  # type: ignore[attr-defined]
    make_reward(model).score(EPISODES)
    assert model.most == 2
    Served(model, workers=5).score(EPISODES)
    assert model.most == 5


def test_served_reaches_the_rewards_inside_others() -> None:
    model = Measured(0.05)
    served = Served(Normalize(Clip(model, 0, 3)), workers=3)
    assert served.score(EPISODES).tolist() == [0, 1, 2, 3, 3, 3]
    assert model.most == 3
    own = Served(Served(model, workers=1), workers=6)
    model.most = 0
    own.score(EPISODES)
    assert model.most == 1  # the inner one says it nearer


# --- dropping --------------------------------------------------------------------------------------------------------------------


def odd_fails(episodes: Sequence[textgym.Episode]) -> list[float]:
    if any(int(e.continuation) % 2 for e in episodes):
        raise OSError("odd")
    return [1.0 for _ in episodes]


def test_a_dropped_episode_is_nan_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "textgym"):
        scores = Served(odd_fails, retries=1, backoff=0.0, on_failure="drop").score(EPISODES)
    np.testing.assert_array_equal(scores, [1, np.nan, 1, np.nan, 1, np.nan])
    assert len(caplog.records) == 3
    assert "failed: OSError: odd (tried 2 times) - on episode 1 of 6: 'ask 1'; dropped" in caplog.text


def test_dropping_is_no_excuse_for_a_missing_package() -> None:
    with pytest.raises(textgym.RewardError, match="pip install"):
        Served(Flaky(textgym.MissingExtraError("judge", "judge")), on_failure="drop").score(EPISODES[:1])


def test_failing_gives_up_what_is_still_to_be_asked() -> None:
    model = Flaky(*[OSError("down")] * 100)
    with pytest.raises(textgym.RewardError, match="OSError: down"):
        Served(model, workers=1, retries=0).score([textgym.Episode("ask", str(i)) for i in range(50)])
    assert model.calls < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be an integer of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be an integer"),
        ({"retries": True}, "retries must be an integer"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds, got nan"),
        ({"backoff": -1.0}, "backoff must be a number of seconds"),
        ({"on_failure": "zero"}, 'on_failure must be "fail" or "drop", got \'zero\''),
    ],
)
def test_a_serving_that_makes_no_sense_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        Serving(**options)


@pytest.mark.skipif(not hasattr(os, "fork") or sys.version_info >= (3, 12), reason="forking a process with threads warns")
def test_a_forked_child_has_an_event_loop_of_its_own() -> None:
    make_reward(AsyncFlaky()).score(EPISODES[:1])
    child = os.fork()
    if child == 0:
        fine = make_reward(AsyncFlaky()).score(EPISODES[:1]).tolist() == [5.0]
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
