"""The conformance checks: each fault is caught by the check that is named after it, and a sound reward passes them all."""

import ctypes
import os
import random
import threading
import time

import pytest

import textgym
from textgym.rewards.conformance import CHECKS, HOSTILE_TEXTS, check_reward


def letters(episode):
    return sum(c.isalpha() for c in episode.continuation) / max(1, len(episode.continuation))


class Sound:
    """Share of letters; what the broken ones below would be without their fault."""

    low, high = 0.0, 1.0

    def score(self, episodes):
        return [letters(e) for e in episodes]


class OrderDependent(Sound):
    def score(self, episodes):
        return [letters(e) / (1 + 0.1 * i) for i, e in enumerate(episodes)]


class Stateful(Sound):
    """Every call is worth less than the last."""

    calls = 0

    def score(self, episodes):
        self.calls += 1
        return [letters(e) / self.calls for e in episodes]


class Grudging(Sound):
    """Remembers the longest text it has met: repeating a call changes nothing, other texts do."""

    longest = 0

    def score(self, episodes):
        self.longest = max(self.longest, *(len(e.text) for e in episodes))
        return [letters(e) / self.longest for e in episodes]


class NaNOnEmpty(Sound):
    def score(self, episodes):
        return [letters(e) if e.continuation.strip() else float("nan") for e in episodes]


class DividesByLength(Sound):
    def score(self, episodes):
        return [sum(c.isalpha() for c in e.continuation) / len(e.continuation) for e in episodes]


class RangeLie(Sound):
    low, high = 0.0, 0.5


class SingleMismatch(Sound):
    """A batch of one takes another way through the code."""

    def score(self, episodes):
        return super().score(episodes) if len(episodes) > 1 else [0.5 * letters(episodes[0])]


class Normalising(Sound):
    """Relative to the mean of its own batch."""

    low, high = -1.0, 1.0

    def score(self, episodes):
        scores = super().score(episodes)
        return [s - sum(scores) / len(scores) for s in scores]


class PaddingSensitive(Sound):
    """As a model without an attention mask would: the longest text of the batch changes the others once it is long."""

    def score(self, episodes):
        width = max(len(e.continuation) for e in episodes)
        return [letters(e) * (0.9 if width > max(1000, len(e.continuation)) else 1.0) for e in episodes]


class Unpicklable(Sound):
    def __init__(self):
        self.lock = threading.Lock()


class Slow(Sound):
    min_texts_per_second = 1000.0

    def score(self, episodes):
        time.sleep(0.002 * len(episodes))
        return super().score(episodes)


class Random(Sound):
    def score(self, episodes):
        return [letters(e) * random.random() for e in episodes]


class ForkUnsafe(Sound):
    def __init__(self):
        self.process = os.getpid()

    def score(self, episodes):
        if os.getpid() != self.process:
            raise RuntimeError("the connection belongs to another process")
        return super().score(episodes)


class DiesInFork(ForkUnsafe):
    def score(self, episodes):
        if os.getpid() != self.process:
            os._exit(7)
        return Sound.score(self, episodes)


class Leaking(Sound):
    def __init__(self):
        self.kept = []

    def score(self, episodes):
        self.kept += [bytearray(os.urandom(1)) * 2**18 for _ in episodes]
        return super().score(episodes)


class CrashesOnLongText(Sound):
    def score(self, episodes):
        if any(len(e.text) > 5000 for e in episodes):
            raise IndexError("index out of range in self")
        return super().score(episodes)


class EmptiesTheBatch(Sound):
    def score(self, episodes):
        scores = []
        while episodes:
            scores.append(letters(episodes.pop(0)))
        return scores


class WritesMetadata(Sound):
    def score(self, episodes):
        for e in episodes:
            e.metadata["seen"] = True
        return super().score(episodes)


class HiddenNeed(Sound):
    def score(self, episodes):
        return [float(e.references[0] == e.text) for e in episodes]


class NeedNotEnforced(Sound):
    needs_references = True


class WrongShape(Sound):
    def score(self, episodes):
        return super().score(episodes)[:-1]


# reward -> the checks that fail. Where there are two, one implies the other: scores that depend on the place in the batch, or on the others
# in it, cannot be those of the texts alone.
BROKEN = {
    OrderDependent: {"order", "batch = singles"},
    Stateful: {"state"},
    Grudging: {"state"},
    NaNOnEmpty: {"hostile texts"},
    DividesByLength: {"hostile texts"},
    RangeLie: {"range"},
    SingleMismatch: {"batch = singles"},
    Normalising: {"batch = singles", "padding"},
    PaddingSensitive: {"padding"},
    Slow: {"speed"},
    Random: {"determinism"},
    ForkUnsafe: {"fork"},
    DiesInFork: {"fork"},
    Leaking: {"memory"},
    CrashesOnLongText: {"hostile texts"},
    EmptiesTheBatch: {"batch untouched"},
    WritesMetadata: {"batch untouched"},
    HiddenNeed: {"references"},
    NeedNotEnforced: {"references"},
    WrongShape: {"scores"},
}


def statuses(results, status):
    return {r.name for r in results if r.status == status}


@pytest.mark.parametrize("reward", BROKEN, ids=lambda r: r.__name__)
def test_each_fault_is_caught_by_its_own_check(reward):
    results = check_reward(reward)
    assert statuses(results, "failed") == BROKEN[reward], results
    assert all("\n" not in r.detail for r in results)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library keeps its free memory")
def test_a_leak_does_not_hide_in_memory_that_was_used_before():
    """Free memory between blocks in use stays with the process, and would take up what leaks without growing it."""
    del [bytearray(b"x") * 2**24 for _ in range(2)][:]  # glibc serves blocks of up to this size from its heap from now on
    blocks = [bytearray(b"x") * 2**18 for _ in range(2000)]
    pins = blocks[::8]
    del blocks
    results = check_reward(Leaking)
    assert statuses(results, "failed") == {"memory"}, results
    assert len(pins) == 250


@pytest.mark.parametrize(
    "spec", [Sound, Sound(), Unpicklable, {"length": 0.1, "repetition": -1.0}], ids=["class", "object", "class with a lock", "sum"]
)
def test_a_sound_reward_passes_every_check(spec):
    results = check_reward(spec)
    assert [r.name for r in results] == list(CHECKS)
    assert statuses(results, "failed") == set(), results
    assert statuses(results, "skipped") <= {"range"}


def test_an_object_that_can_be_neither_pickled_nor_built_again():
    (found,) = [r for r in check_reward(Unpicklable()) if r.status == "failed"]
    assert found.name == "rebuilding"
    assert "cannot pickle '_thread.lock'" in found.detail


def test_a_function_inside_a_function_works_but_cannot_go_to_another_process():
    def inner(episodes):
        return [letters(e) for e in episodes]

    assert statuses(check_reward(inner), "failed") == {"rebuilding"}


def test_a_broken_object_is_found_out_as_its_class_is():
    assert statuses(check_reward(Stateful()), "failed") == {"state"}
    assert statuses(check_reward(Random()), "failed") == {"determinism"}


def test_scores_that_change_are_not_compared_any_further():
    skipped = statuses(check_reward(Stateful), "skipped")
    assert skipped == {"batch = singles", "order", "padding"}
    assert statuses(check_reward(Random), "skipped") == {"state", *skipped}


def test_declared_chance_must_follow_the_seed_or_is_said_not_to():
    class Seeded(Random):
        deterministic = False

    class Unseedable(Sound):
        deterministic = False

        def score(self, episodes):
            return [letters(e) * os.urandom(1)[0] / 255 for e in episodes]

    # numbers drawn one after the other depend on the place in the batch; one drawn per call does not
    assert statuses(check_reward(Seeded), "failed") <= {"batch = singles", "order"}
    results = check_reward(Unseedable)
    assert statuses(results, "failed") == set()
    assert "no seed makes it repeat itself" in {r.name: r.detail for r in results}["determinism"]


def test_what_failed_is_told_with_numbers_and_the_text():
    details = {r.name: r.detail for r in check_reward(RangeLie)}
    assert details["range"].startswith("declares 0 to 0.5, but gave ")
    details = {r.name: r.detail for r in check_reward(NaNOnEmpty)}
    assert details["hostile texts"].startswith("an empty text: reward 'NaNOnEmpty' returned nan")
    details = {r.name: r.detail for r in check_reward(DiesInFork)}
    assert details["fork"] == "the forked worker died (exit code 7)"


def test_hostile_texts_are_what_they_are_called():
    assert "" in HOSTILE_TEXTS.values()
    assert any(len(text) == 1 for text in HOSTILE_TEXTS.values())
    assert max(map(len, HOSTILE_TEXTS.values())) >= 20_000


def test_a_slow_reward_is_checked_on_fewer_texts():
    scored = []

    class VerySlow(Sound):
        def score(self, episodes):
            scored.append(len(episodes))
            time.sleep(0.101 if len(scored) < 3 else 0.001)  # only at first, so that this test is not slow itself
            return super().score(episodes)

    check_reward(VerySlow)
    assert scored[2] == 4


def test_own_episodes_and_bad_arguments():
    episodes = [textgym.Episode("2 + 2 =", f" {i}") for i in range(4)]
    assert check_reward(Sound, episodes)[0].detail.startswith("4 finite numbers")
    with pytest.raises(textgym.InvalidArgumentError, match="at least 4 episodes with a continuation, got 3"):
        check_reward(Sound, [*episodes[:3], textgym.Episode("2 + 2 =", " ")])
    with pytest.raises(textgym.InvalidArgumentError, match="min_speed must be a number"):
        check_reward(Sound, min_speed=float("nan"))
    with pytest.raises(textgym.UnknownNameError, match="did you mean 'human-rating'"):
        check_reward("humanrating")


@pytest.mark.parametrize(
    "name", ["human-rating", "vader", "length", "repetition", "copied", "clip(human-rating, -1, 1)", "human-rating - 0.5*repetition"]
)
def test_bundled_rewards_pass(name):
    assert statuses(check_reward(name), "failed") == set()


@pytest.mark.slow
def test_the_bundled_language_model_passes():
    assert statuses(check_reward("log-prob"), "failed") == set()


def test_the_fixture_fails_a_test_with_one_line_per_fault(check_reward):
    assert check_reward(Sound)
    with pytest.raises(pytest.fail.Exception) as caught:
        check_reward(OrderDependent)
    lines = str(caught.value).splitlines()
    assert lines[0] == "reward 'OrderDependent': 2 of 14 checks failed"
    assert [line.split(":")[0] for line in lines[1:]] == ["batch = singles", "order"]
