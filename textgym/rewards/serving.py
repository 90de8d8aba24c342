"""Serving: slow or remote reward models called side by side, with time-outs, retries and a declared way to fail."""

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, TemporaryRewardError, TextgymError, one_line

T = TypeVar("T")
OnFailure = Literal["fail", "drop"]
LONGEST_PAUSE = 60.0  # seconds between two attempts, whatever the other side asks for
FAULTS_OF_THE_CODE = (TypeError, AttributeError, NameError, AssertionError, NotImplementedError, ImportError)


@dataclass(frozen=True)
class Serving:
    """How a slow or remote reward model is called. A model declares its own by an attribute `serving`.

    Attributes:
        workers: Calls that run at the same time, at most.
        batch_size: Episodes per call.
        timeout: Seconds per attempt. A call that is not a coroutine goes on in its (daemon) thread, and its answer is thrown away.
        retries: Further attempts after the first. Errors of the code (`TypeError`, ...) and of textgym, except
            `TemporaryRewardError`, are not tried again.
        backoff: Seconds before the first retry, doubled for each further one; a `retry_after` of the error overrides it.
        on_failure: "fail" stops the run with an error; "drop" makes the score nan, which takes the episode out of learning and is counted.
    """

    workers: int = 8
    batch_size: int = 1
    timeout: float = 60.0
    retries: int = 3
    backoff: float = 0.5
    on_failure: OnFailure = "fail"

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("batch_size", 1), ("retries", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")
        if not self.timeout > 0 or not self.backoff >= 0:
            raise InvalidArgumentError(f"timeout must be above 0 and backoff at least 0 seconds, got {self.timeout!r} and {self.backoff!r}")
        if self.on_failure not in get_args(OnFailure):
            raise InvalidArgumentError(f'on_failure must be "fail" or "drop", got {self.on_failure!r}')


@dataclass(frozen=True)
class Failure:
    """What became of a call that failed for good.

    Attributes:
        reason: The last error, in one line.
        attempts: How often it was tried.
        temporary: Whether the last error might have passed.
    """

    reason: str
    attempts: int
    temporary: bool

    def __str__(self) -> str:
        return f"{self.reason} (tried {self.attempts} time{'s' if self.attempts > 1 else ''})"


def serve(
    score: Callable[[Sequence[Episode]], T | Awaitable[T]], episodes: Sequence[Episode], serving: Serving
) -> list[tuple[Sequence[Episode], T | Failure]]:
    """Call `score`, a function or a coroutine function, on pieces of `episodes`; return each piece with its result or failure, in order.

    With `on_failure="fail"` the first failure ends the waiting: later pieces are given up and the list ends with it.
    """
    pieces = [episodes[i : i + serving.batch_size] for i in range(0, len(episodes), serving.batch_size)]
    return run_in_background(_serve(score, pieces, serving))


async def _serve(score: Callable[..., Any], pieces: Sequence[Sequence[Episode]], serving: Serving) -> list[Any]:
    gate = asyncio.Semaphore(serving.workers)

    async def one(piece: Sequence[Episode]) -> Any:
        async with gate:
            return await _attempts(score, piece, serving)

    tasks = [asyncio.ensure_future(one(piece)) for piece in pieces]
    results: list[tuple[Sequence[Episode], Any]] = []
    try:
        for piece, task in zip(pieces, tasks, strict=True):
            results.append((piece, await task))
            if isinstance(results[-1][1], Failure) and serving.on_failure == "fail":
                break
        return results
    finally:
        for task in tasks:
            task.cancel()


async def _attempts(score: Callable[..., Any], piece: Sequence[Episode], serving: Serving) -> Any:
    for attempt in range(serving.retries + 1):
        try:
            return await asyncio.wait_for(_call(score, piece), serving.timeout)
        except Exception as error:
            pause = serving.backoff * 2**attempt
            reason, temporary = one_line(error), _may_pass(error)
            if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
                reason = f"no answer within {serving.timeout:g} s"
            if isinstance(error, TemporaryRewardError):
                reason = str(error)
                pause = pause if error.retry_after is None else error.retry_after
            if not temporary or attempt == serving.retries:
                return Failure(reason, attempt + 1, temporary)
        await asyncio.sleep(min(pause, LONGEST_PAUSE))
    raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    if isinstance(error, TextgymError):
        return isinstance(error, TemporaryRewardError)
    return not isinstance(error, FAULTS_OF_THE_CODE)


async def _call(score: Callable[..., Any], piece: Sequence[Episode]) -> Any:
    if inspect.iscoroutinefunction(score):
        return await score(list(piece))
    result = await _in_daemon_thread(lambda: score(list(piece)))
    return await result if inspect.isawaitable(result) else result  # a plain function that returns a coroutine


async def _in_daemon_thread(function: Callable[[], Any]) -> Any:
    """Run `function` in a thread of its own, which neither a time-out nor the end of the program has to wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not done.done():  # else nobody waits any more
            setter(value)

    def work() -> None:
        try:
            result = function()
        except Exception as error:
            loop.call_soon_threadsafe(settle, done.set_exception, error)
        else:
            loop.call_soon_threadsafe(settle, done.set_result, result)

    threading.Thread(target=work, name="textgym-reward", daemon=True).start()
    return await done


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in the process's background event loop; works inside a running loop (a notebook) too."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _background_loop(os.getpid()))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@cache
def _background_loop(pid: int) -> asyncio.AbstractEventLoop:
    """Return the event loop of this process; a forked child, which inherits no thread, gets its own."""
    del pid  # the key
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="textgym-event-loop", daemon=True).start()
    return loop
