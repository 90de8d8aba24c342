"""Serving: slow or remote reward models called side by side, with time-outs, retries and a declared way to fail."""

import asyncio
import concurrent.futures
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, RewardError, TemporaryRewardError, TextgymError, one_line

T = TypeVar("T")
OnFailure = Literal["fail", "drop"]
LONGEST_PAUSE = 60.0  # seconds between two attempts, whatever the other side asks for
LEAST_PATIENCE = 1.0  # seconds before an event loop counts as blocked: a busy machine is slow, too
FAULTS_OF_THE_CODE = (TypeError, AttributeError, NameError, AssertionError, NotImplementedError, ImportError)


@dataclass(frozen=True)
class Serving:
    """How a slow or remote reward model is called. A model declares its own by an attribute `serving`.

    Attributes:
        workers: Calls that run at the same time, at most.
        batch_size: Episodes per call.
        timeout: Seconds per attempt. A call that is not a coroutine goes on in its (daemon) thread, and its answer is thrown away.
        retries: Further attempts after the first, also after an answer that is not one finite number per episode. Errors of the code
            (`TypeError`, ...) and of textgym, except `TemporaryRewardError`, are not tried again.
        backoff: Seconds before the first retry, doubled for each further one; a `retry_after` of the error overrides it. At most a minute.
        on_failure: "fail" stops the run with an error; "drop" makes the score nan, which takes the episode out of learning and is counted.
            An error that no episode is to blame for (a missing package, a wrong option) stops the run either way.
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
        for name in ("timeout", "backoff"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise InvalidArgumentError(f"{name} must be a number of seconds, got {value!r}")
        if self.timeout == 0:
            raise InvalidArgumentError("timeout must be above 0 seconds")
        if self.on_failure not in get_args(OnFailure):
            raise InvalidArgumentError(f'on_failure must be "fail" or "drop", got {self.on_failure!r}')


@dataclass(frozen=True)
class Failure:
    """What became of a call that failed for good.

    Attributes:
        reason: The last error, in one line.
        attempts: How often it was tried.
        fatal: Whether it would have happened with any other episode: no reason to drop this one.
    """

    reason: str
    attempts: int
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.reason} (tried {self.attempts} time{'s' if self.attempts > 1 else ''})"


def serve(
    score: Callable[[Sequence[Episode]], Any], episodes: Sequence[Episode], serving: Serving, check: Callable[[Any, Sequence[Episode]], T]
) -> list[tuple[Sequence[Episode], T | Failure]]:
    """Call `score`, a function or a coroutine function, on pieces of `episodes`; return each piece with its result or failure, in order.

    Args:
        score: What is called.
        episodes: What it is to score.
        serving: How it is called. With `on_failure="fail"` the first failure ends the waiting: later pieces are given up and the list ends
            with it.
        check: Turns an answer into a result, or raises `RewardError` if it is none: then the attempt has failed.
    """
    pieces = [episodes[i : i + serving.batch_size] for i in range(0, len(episodes), serving.batch_size)]
    return run_in_background(_serve(score, pieces, serving, check), max(serving.timeout, LEAST_PATIENCE))


async def _serve(score: Callable[..., Any], pieces: Sequence[Sequence[Episode]], serving: Serving, check: Callable[..., Any]) -> list[Any]:
    gate = asyncio.Semaphore(serving.workers)

    async def one(piece: Sequence[Episode]) -> Any:
        async with gate:
            return await _attempts(score, piece, serving, check)

    tasks = [asyncio.ensure_future(one(piece)) for piece in pieces]
    results: list[tuple[Sequence[Episode], Any]] = []
    try:
        for piece, task in zip(pieces, tasks, strict=True):
            results.append((piece, await task))
            if isinstance(results[-1][1], Failure) and (serving.on_failure == "fail" or results[-1][1].fatal):
                break
        return results
    finally:
        for task in tasks:
            task.cancel()


async def _attempts(score: Callable[..., Any], piece: Sequence[Episode], serving: Serving, check: Callable[..., Any]) -> Any:
    for attempt in range(serving.retries + 1):
        pause, again = serving.backoff * 2.0**attempt, True
        try:
            answer = await _within(serving.timeout, _call(score, piece))
        except _NoAnswer as error:
            reason = str(error)
        except TemporaryRewardError as error:
            reason, pause = _message(error), pause if error.retry_after is None else error.retry_after
        except RewardError as error:  # the reward itself says that it cannot score this
            return Failure(_message(error), attempt + 1)
        except TextgymError as error:
            return Failure(one_line(error), attempt + 1, fatal=True)
        except Exception as error:
            reason, again = one_line(error), not isinstance(error, FAULTS_OF_THE_CODE)
        else:
            try:
                return check(answer, piece)
            except RewardError as error:
                reason = _message(error)
        if not again or attempt == serving.retries:
            return Failure(reason, attempt + 1)
        await asyncio.sleep(min(pause, LONGEST_PAUSE))
    raise AssertionError("unreachable")


def _message(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _NoAnswer(Exception):  # noqa: N818  # what happened, for `_attempts` alone
    """A call that took too long, or gave up without an error."""


async def _within(seconds: float, call: Coroutine[Any, Any, Any]) -> Any:
    """Await a call at most so long. Unlike `asyncio.wait_for` this does not wait for a call that ignores being cancelled."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        done = task.done()
        if not done:
            task.cancel()
            task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody else looks at it
    if not done:
        raise _NoAnswer(f"no answer within {seconds:g} s")
    if task.cancelled():
        raise _NoAnswer("the call was cancelled from inside")
    return task.result()


async def _call(score: Callable[..., Any], piece: Sequence[Episode]) -> Any:
    if not inspect.iscoroutinefunction(score):
        result = await _in_daemon_thread(lambda: score(list(piece)))
        if not inspect.isawaitable(result):
            return result
    else:
        result = score(list(piece))
    try:
        return await result
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # would end the event loop, for every reward
        raise RuntimeError(one_line(error)) from error


async def _in_daemon_thread(function: Callable[[], Any]) -> Any:
    """Run `function` in a thread of its own, which neither a time-out nor the end of the program has to wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not done.done():  # else nobody waits any more
            setter(value)

    def work() -> None:
        setter: Callable[[Any], None] = done.set_exception
        try:
            outcome, setter = function(), done.set_result
        except (StopIteration, StopAsyncIteration) as error:  # a future takes none
            outcome = RuntimeError(one_line(error))
        except Exception as error:
            outcome = error
        except BaseException as error:  # sys.exit() in a thread ends that thread only
            outcome = RuntimeError(one_line(error))
        loop.call_soon_threadsafe(settle, setter, outcome)

    threading.Thread(target=work, name="textgym-reward", daemon=True).start()
    return await done


def run_in_background(coroutine: Coroutine[Any, Any, T], patience: float = 600.0) -> T:
    """Run a coroutine to its end in the process's background event loop; works inside a running loop (a notebook) too.

    Raises `RewardError` if the loop itself does not move for `patience` seconds: some coroutine blocks it instead of awaiting.
    """
    loop = _background_loop(os.getpid())
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        while True:
            try:
                return future.result(patience)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise
                moves = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
                try:
                    moves.result(patience)
                except concurrent.futures.TimeoutError:
                    moves.cancel()
                    _background_loop.cache_clear()  # the next call gets a loop that moves
                    raise RewardError(
                        f"a reward written as a coroutine has blocked its event loop for {patience:g} s: "
                        f"let it await, or make it a plain function, which gets a thread"
                    ) from None
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
