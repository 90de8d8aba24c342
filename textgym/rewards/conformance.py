"""Conformance: is a reward model sound? One function per check, each with a line that says what was found."""

import copy
import math
import multiprocessing
import pickle
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, TextgymError, one_line
from textgym.rewards.declaration import Declaration, declaration_of
from textgym.rewards.protocol import Array, RewardSpec
from textgym.rewards.reward import Reward, make_reward

TOLERANCE = 1e-5  # relative to 1 + |score|: floating-point sums of another order
SAMPLE = 16  # episodes in most checks
SPEED_SIZES = (1, 16, 256)
PATIENCE = 60.0  # seconds for the forked worker, and for the measurement of speed
MEMORY_GROWTH = 64.0  # MiB that repeated scoring may keep

HOSTILE_TEXTS = {
    "an empty text": "",
    "white space": " \t\n ",
    "one character": "a",
    "one full stop": ".",
    "a very long text": " It was good, and then it was not." * 600,
    "one very long word": "a" * 20_000,
    "emoji": " 😀👍🏽👩‍👩‍👧‍👦🎬🇫🇷",
    "right-to-left text": " الفيلم كان رائعا، שלום עולם",
    "control characters": "\x00\x01\x07\x1b[31m\x7f\u200b\ufeff",
    "combining marks": " Z\u0351\u036b\u0343a\u0334\u0321l\u0337g\u0300o",
    "a lone surrogate's replacement": " caf\ufffd",
    "numbers only": " 1e999 -0 3/0 NaN inf",
    "markup": ' <script>alert("x")</script> {"a": [1, ',
}


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check: its name, "passed", "failed" or "skipped", and what was found in one line."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    detail: str


@dataclass
class _Subject:
    """What is checked: how to build it anew, one built, and material."""

    build: Callable[[], Reward]
    reward: Reward
    declared: Declaration
    episodes: list[Episode]
    by_name: bool
    min_speed: float
    seen: list[float]

    def score(self, episodes: Sequence[Episode], reward: Reward | None = None) -> Array:
        scores = (reward or self.reward).score(episodes)
        self.seen.extend(scores[np.isfinite(scores)].tolist())
        return scores


class _FindingError(Exception):
    """A check's finding that the reward is not sound."""


class _NotApplicableError(Exception):
    """A check that says nothing about this reward."""


def check_reward(
    spec: "RewardSpec | Reward",
    episodes: Sequence[Episode] | None = None,
    min_speed: float | None = None,
    **options: Any,
) -> list[CheckResult]:
    """Check a reward; return one result per check, in a fixed order.

    Args:
        spec, **options: As for `textgym.make_reward`.
        episodes: Texts that it is made for; a few review sentences with references by default.
        min_speed: Texts per second that it must reach in batches; by default what it declares (`min_texts_per_second`, else 10).

    Returns:
        Results of: scores, batch = singles, order, padding, determinism, state, hostile texts, references, range, rebuilding, fork, speed,
        memory. If it cannot even score the texts, the first result says so and is the only one.
    """
    material = list(episodes) if episodes is not None else sample_episodes()
    if len(material) < 4:
        raise InvalidArgumentError(f"a check needs at least 4 episodes, got {len(material)}")
    by_name = isinstance(spec, (str, type)) or callable(getattr(spec, "items", None))

    def build() -> Reward:
        return make_reward(spec, **options) if by_name else make_reward(copy.deepcopy(spec))

    reward = make_reward(spec, **options)
    declared = _declaration(reward)
    speed = declared.min_texts_per_second if min_speed is None else min_speed
    subject = _Subject(build, reward, declared, material[:256], by_name, speed, [])
    results = []
    for name, check in CHECKS.items():
        results.append(_run(name, check, subject))
        if name == "scores" and results[0].status == "failed":
            break
    return results


def sample_episodes() -> list[Episode]:
    """Return forty review-like episodes of different lengths, with references, token ids and a number in each."""
    things = ("movie", "camera", "phone", "story", "battery")
    openings = (
        "The {} was",
        "I bought this {} and it is",
        "This {} has 2",
        "What a",
        "My {} of 1999 is",
        "Honestly, the {}",
        "No",
        "A {} that",
    )
    endings = (
        " a delight from beginning to end.",
        " terrible; it broke after 3 days, and nobody answered my letters.",
        " fine.",
        " the best I have seen in 10 years! Buy it now, buy it twice, tell your friends.",
        " boring\nand far too long, although the music (by her brother) is lovely...",
        "",
        " not bad at all, really, and worth every cent of the 49.99 I paid.",
    )
    episodes = []
    for i in range(40):
        prompt = openings[i % len(openings)].format(things[i % len(things)])
        continuation = endings[i % len(endings)]
        ids = tuple(3 + (7 * i + j) % 500 for j in range(len(continuation.split())))
        references = (prompt + endings[(i + 1) % 5], prompt + endings[(i + 3) % 5])
        reason: Literal["stop", "length"] = "stop" if i % 2 else "length"
        episodes.append(Episode(prompt, continuation, (1, 2), ids, references, reason, {"id": i}))
    return episodes


def _declaration(reward: Reward) -> Declaration:
    """Return what a reward declares: its term's own, or what can be said of a sum of terms."""
    each = [declaration_of(term.model) for term in reward.terms]
    if len(each) == 1 and reward.terms[0].weight == 1:
        return each[0]
    ends = [sorted((t.weight * d.low, t.weight * d.high)) for t, d in zip(reward.terms, each, strict=True)]
    return Declaration(
        low=sum(low for low, _ in ends),
        high=sum(high for _, high in ends),
        needs_references=any(d.needs_references for d in each),
        deterministic=all(d.deterministic for d in each),
        min_texts_per_second=min(d.min_texts_per_second for d in each),
    )


def _run(name: str, check: Callable[[_Subject], str], subject: _Subject) -> CheckResult:
    try:
        return CheckResult(name, "passed", check(subject))
    except _NotApplicableError as reason:
        return CheckResult(name, "skipped", str(reason))
    except _FindingError as found:
        return CheckResult(name, "failed", str(found))
    except TextgymError as error:
        return CheckResult(name, "failed", " ".join(str(error).split()))
    except Exception as error:
        return CheckResult(name, "failed", one_line(error))


# --- the checks ------------------------------------------------------------------------------------------------------------------


def _scores(subject: _Subject) -> str:
    scores = subject.score(subject.episodes[:SAMPLE])
    return f"{len(scores)} finite numbers, {scores.min():.4g} to {scores.max():.4g}"


def _batch_equals_singles(subject: _Subject) -> str:
    sample = subject.episodes[:SAMPLE]
    batch = _seeded(subject, lambda: subject.score(sample))
    singles = _seeded(subject, lambda: np.array([subject.score([e])[0] for e in sample]))
    _same(batch, singles, sample, "in a batch", "alone")
    return f"{len(sample)} texts score the same together and alone"


def _order(subject: _Subject) -> str:
    sample = subject.episodes[:SAMPLE]
    order = np.random.default_rng(0).permutation(len(sample))
    before = _seeded(subject, lambda: subject.score(sample))
    after = _seeded(subject, lambda: subject.score([sample[i] for i in order]))
    _same(before[order], after, [sample[i] for i in order], "in order", "shuffled")
    return "the order of the batch does not matter"


def _padding(subject: _Subject) -> str:
    sample = subject.episodes[: SAMPLE - 1]
    longest = replace(sample[0], continuation=" and so on" * 200, continuation_ids=tuple(range(3, 603)))
    alone = _seeded(subject, lambda: subject.score(sample))
    beside = _seeded(subject, lambda: subject.score([*sample, longest]))[:-1]
    _same(alone, beside, sample, "without", "with a very long text beside it")
    return "a very long text in the batch changes no other score"


def _determinism(subject: _Subject) -> str:
    sample = subject.episodes[:SAMPLE]
    if subject.declared.deterministic:
        first, second = subject.score(sample), subject.score(sample)
        _same(first, second, sample, "first", "second time", exact=True)
        return "the same texts get the same scores again"
    first, second = _seeded(subject, lambda: subject.score(sample)), _seeded(subject, lambda: subject.score(sample))
    _same(first, second, sample, "first", "second time under the same seed")
    return "declared as not deterministic; the same under a seed"


def _state(subject: _Subject) -> str:
    sample, others = subject.episodes[:SAMPLE], subject.episodes[SAMPLE : 2 * SAMPLE] or subject.episodes[:2]
    used = subject.build()
    before = _seeded(subject, lambda: subject.score(sample, used))
    for _ in range(3):
        subject.score(others, used)
    after = _seeded(subject, lambda: subject.score(sample, used))
    _same(before, after, sample, "before", "after other texts were scored")
    fresh = subject.build()
    _same(before, _seeded(subject, lambda: subject.score(sample, fresh)), sample, "by one object", "by a fresh one")
    return "calls leave nothing behind"


def _hostile_texts(subject: _Subject) -> str:
    example = next((e for e in subject.episodes if e.continuation.strip()), subject.episodes[0])
    for name, text in HOSTILE_TEXTS.items():
        ids = tuple(range(3, 3 + min(len(text.split()), 500)))
        try:
            scores = subject.score([replace(example, continuation=text, continuation_ids=ids)])
        except TextgymError as error:
            raise _FindingError(f"{name}: {' '.join(str(error).split())}") from None
        if not np.isfinite(scores).all():
            raise _FindingError(f"{name}: got {scores[0]}")
    return f"finite on {', '.join(HOSTILE_TEXTS)}"


def _references(subject: _Subject) -> str:
    bare = [replace(e, references=()) for e in subject.episodes[:4]]
    if not subject.declared.needs_references:
        subject.score(bare)
        return "not needed"
    try:
        subject.score(bare)
    except TextgymError:
        return "needed, and refused in one line where they are missing"
    raise _FindingError("declares needs_references but scores episodes without any")


def _range(subject: _Subject) -> str:
    low, high = subject.declared.low, subject.declared.high
    slack = TOLERANCE * (1 + max((abs(x) for x in (low, high) if math.isfinite(x)), default=0.0))
    least, most = min(subject.seen), max(subject.seen)
    if least < low - slack or most > high + slack:
        outside = least if least < low - slack else most
        raise _FindingError(f"declares {low:g} to {high:g} but gave {outside:.6g}")
    if math.isinf(low) and math.isinf(high):
        raise _NotApplicableError("declares no range (low, high)")
    return f"{low:g} to {high:g} declared, {least:.4g} to {most:.4g} seen in {len(subject.seen):,} scores"


def _rebuilding(subject: _Subject) -> str:
    sample = subject.episodes[:4]
    scores = _seeded(subject, lambda: subject.score(sample))
    try:
        copied = pickle.loads(pickle.dumps(subject.reward))
    except Exception as error:
        if not subject.by_name:
            raise _FindingError(f"can be neither pickled ({one_line(error)}) nor built again from a name") from None
        copied = subject.build()
        _same(scores, _seeded(subject, lambda: subject.score(sample, copied)), sample, "by the object", "built again from its name")
        return "cannot be pickled, but built again from its name and options"
    _same(scores, _seeded(subject, lambda: subject.score(sample, copied)), sample, "by the object", "by its pickled copy")
    return "pickled and read back"


def _fork(subject: _Subject) -> str:
    if "fork" not in multiprocessing.get_all_start_methods():
        raise _NotApplicableError("this system cannot fork")
    sample = subject.episodes[:4]
    expected = _seeded(subject, lambda: subject.score(sample))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_score_in_child, args=(subject, sample, sender), daemon=True)
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that the process has threads is what is tested
        worker.start()
    sender.close()
    try:
        if not receiver.poll(PATIENCE):
            raise _FindingError(f"no scores from a forked worker within {PATIENCE:g} s")
        try:
            answer = receiver.recv()
        except EOFError:
            worker.join(1)
            raise _FindingError(f"the forked worker died (exit code {worker.exitcode})") from None
    finally:
        worker.kill()
        worker.join()
        receiver.close()
    if isinstance(answer, str):
        raise _FindingError(f"in a forked worker: {answer}")
    _same(expected, answer, sample, "here", "in a forked worker")
    return "a forked worker gives the same scores"


def _score_in_child(subject: _Subject, sample: list[Episode], sender: Any) -> None:
    try:
        sender.send(_seeded(subject, lambda: subject.score(sample)))
    except Exception as error:
        sender.send(" ".join(str(error).split()))


def _speed(subject: _Subject) -> str:
    texts = (subject.episodes * (SPEED_SIZES[-1] // len(subject.episodes) + 1))[: SPEED_SIZES[-1]]
    texts = [replace(e, metadata={**e.metadata, "speed": i}) for i, e in enumerate(texts)]  # different for whoever keeps scores
    found: dict[int, float] = {}
    for size in SPEED_SIZES:
        if found and size / max(found.values()) > PATIENCE:
            break
        start, n = time.perf_counter(), 0
        while n < size or time.perf_counter() - start < 0.2:
            subject.score(texts[:size])
            n += size
        found[size] = n / (time.perf_counter() - start)
    shown = ", ".join(f"{speed:,.3g} texts/s at {size}" for size, speed in found.items())
    if max(found.values()) < subject.min_speed:
        raise _FindingError(f"{shown}; slower than {subject.min_speed:g} texts/s")
    return shown


def _memory(subject: _Subject) -> str:
    sample = subject.episodes[:SAMPLE]
    start = time.perf_counter()
    subject.score(sample)
    each = time.perf_counter() - start
    if each > 2.0:
        raise _NotApplicableError("too slow to be repeated")
    for _ in range(3):
        subject.score(sample)
    before = _resident_mib()
    if before is None:
        raise _NotApplicableError("this system does not tell the memory in use")
    for i in range(min(50, int(4 / max(each, 1e-4)))):
        subject.score([replace(e, continuation=f"{e.continuation} {i}") for e in sample])
    after = _resident_mib() or before
    if after - before > MEMORY_GROWTH:
        raise _FindingError(f"the process grew by {after - before:.0f} MiB while it scored other texts; {after:.0f} MiB in use")
    return f"{after:.0f} MiB in use by the process, {max(0.0, after - before):.0f} more after further texts"


CHECKS: dict[str, Callable[[_Subject], str]] = {
    "scores": _scores,
    "batch = singles": _batch_equals_singles,
    "order": _order,
    "padding": _padding,
    "determinism": _determinism,
    "state": _state,
    "hostile texts": _hostile_texts,
    "references": _references,
    "rebuilding": _rebuilding,
    "fork": _fork,
    "speed": _speed,
    "memory": _memory,
    "range": _range,  # last: it looks at every score seen before
}


# --- help ----------------------------------------------------------------------------------------------------------------------------


def _same(first: Array, second: Array, episodes: Sequence[Episode], how: str, other: str, exact: bool = False) -> None:
    apart = np.abs(first - second) > (0.0 if exact else TOLERANCE * (1 + np.abs(first)))
    if apart.any():
        i = int(np.flatnonzero(apart)[0])
        raise _FindingError(f"{first[i]:.6g} {how}, {second[i]:.6g} {other}: {episodes[i].text[:60]!r}")


def _seeded(subject: _Subject, work: Callable[[], Array]) -> Array:
    """Do `work` with the global generators seeded, if the reward says that it draws random numbers."""
    if not subject.declared.deterministic:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  the global one is what a reward might draw from
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(0)
    return work()


def _resident_mib() -> float | None:
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return None
    import resource

    return pages * resource.getpagesize() / 2**20
