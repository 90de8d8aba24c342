"""Conformance: is a reward model sound? One function per check, each with a line that says what was found."""

import copy
import inspect
import math
import multiprocessing
import pickle
import random
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, TextgymError, one_line
from textgym.memory import give_back_free_memory, resident_memory
from textgym.rewards.composition import range_of
from textgym.rewards.declaration import Declaration, declaration_of
from textgym.rewards.protocol import Array, CompositeRewardModel, RewardSpec
from textgym.rewards.reward import Reward, make_reward
from textgym.rewards.serving import run_in_background
from textgym.tasks import make_task

TOLERANCE = 1e-4  # relative to 1 + |score|: a padded batch adds floating-point numbers in another order
SAMPLE, SMALL_SAMPLE = 16, 4  # episodes in most checks; the small one for a reward that takes longer than SLOW_TEXT for one
SLOW_TEXT = 0.1  # seconds
SPEED_SIZES = (1, 16, 256)
SPEED_SECONDS, SPEED_TEXTS = 0.2, 2048  # each size is timed for so long, or over so many texts
PATIENCE = 10.0  # seconds, beyond what its speed explains: for the forked worker, and for the measurement of speed
MEMORY_BATCHES, MEMORY_SECONDS = 50, 2.0
MEMORY_GROWTH = 64.0  # MiB that scoring other texts may keep

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
    "an undecodable byte": " caf\ufffd",
    "numbers": " 1e999 -0 3/0 NaN inf",
    "markup": ' <script>alert("x")</script> {"a": [1, ',
}


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: Of the check.
        status: "passed", "failed", or "skipped" where the check says nothing about this reward.
        detail: What was found, in one line.
    """

    name: str
    status: Literal["passed", "failed", "skipped"]
    detail: str


class _Subject:
    """What is checked: one reward that does the work, how to get another as good as new, and material."""

    def __init__(self, spec: "RewardSpec | Reward", options: dict[str, Any], episodes: list[Episode], min_speed: float | None) -> None:
        self.spec, self.options, self.episodes = spec, options, episodes
        self.metadata = [copy.deepcopy(dict(e.metadata)) for e in episodes]  # as given, whatever the reward does to it
        self.by_name = isinstance(spec, (str, type, Mapping))
        self.reward = make_reward(spec, **options)
        self.untouched: Any = None  # the models of a reward given as an object, copied before they are used
        if not self.by_name:
            try:
                self.untouched = copy.deepcopy([term.model for term in self.reward.terms])
            except Exception:  # said by the check "rebuilding"
                self.untouched = None
        self.declared = _declaration(self.reward)
        self.min_speed = self.declared.min_texts_per_second if min_speed is None else min_speed
        self.size, self.seconds_per_text = SAMPLE, 0.0
        self.repeatable = True  # False once the same call was seen to give other scores: comparing them would say nothing more
        self.used: Reward | None = None  # the object that the check "determinism" used, and what it scored first
        self.first: Array | None = None
        self.least, self.most, self.n_seen = math.inf, -math.inf, 0

    @property
    def sample(self) -> list[Episode]:
        return self.episodes[: self.size]

    def fresh(self) -> Reward | None:
        """Return another object of the same reward, or None where an object can be neither built nor copied."""
        if self.by_name:
            return make_reward(self.spec, **self.options)
        return None if self.untouched is None else _with_models(self.reward, copy.deepcopy(self.untouched))

    def score(self, episodes: Sequence[Episode], reward: Reward | None = None) -> Array:
        """Score, the global generators seeded if the reward says that it draws random numbers."""
        if not self.declared.deterministic:
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002  the global one is what a reward might draw from
            if "torch" in sys.modules:
                sys.modules["torch"].manual_seed(0)
        scores = (reward or self.reward).score(episodes)
        finite = scores[np.isfinite(scores)]  # dropped episodes of a served reward are nan
        if finite.size:
            self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))
            self.n_seen += finite.size
        return scores


class _FindingError(Exception):
    """A check's finding that the reward is not sound."""


class _NotApplicableError(Exception):
    """A check that says nothing about this reward."""


def task_episodes(name: str) -> list[Episode]:
    """Return each prompt of a task's validation split, continued by the reference of the next."""
    task = make_task(name)
    prompts = task.split("validation" if "validation" in task.prompts else next(iter(task.prompts)))[:64]
    episodes = []
    for i, prompt in enumerate(prompts):
        other = prompts[(i + 1) % len(prompts)]
        text = other.references[0].removeprefix(other.text) if other.references else f" {other.text}"
        ids = tuple(range(3, 3 + len(text.split())))
        episodes.append(Episode(prompt.text, text, (1,), ids, prompt.references, "stop", prompt.metadata))
    return episodes


def check_reward(
    spec: "RewardSpec | Reward",
    episodes: Sequence[Episode] | None = None,
    min_speed: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> list[CheckResult]:
    """Check a reward; return one result per check, in a fixed order.

    A fault shows in the check that is named after it. A reward whose scores change from call to call fails "determinism" or "state", and the
    checks that compare scores are skipped: they would only say the same again.

    Args:
        spec, **options: As for `textgym.make_reward`.
        episodes: Texts that it is made for, at least 4 with a continuation; a few review sentences with references by default.
        min_speed: Texts per second that it must reach in batches; by default what it declares (`min_texts_per_second`, else 10).
        progress: Called with the name of each check before it runs.

    Returns:
        The results of `CHECKS`. If the reward cannot even score the texts, the first says so and is the only one.

    Raises:
        InvalidArgumentError: Too few episodes, a speed that is none, or whatever `textgym.make_reward` raises.
    """
    material = [e for e in (sample_episodes() if episodes is None else episodes) if e.continuation.strip()]  # empty ones: "hostile texts"
    if len(material) < SMALL_SAMPLE:
        raise InvalidArgumentError(f"a check needs at least {SMALL_SAMPLE} episodes with a continuation, got {len(material)}")
    if min_speed is not None and not 0 <= min_speed < math.inf:
        raise InvalidArgumentError(f"min_speed must be a number of texts per second, got {min_speed}")
    subject = _Subject(spec, options, material[: SPEED_SIZES[-1]], min_speed)
    results = []
    for name, check in CHECKS.items():
        progress(name)
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
    low, high = range_of(reward)
    return Declaration(
        low=low,
        high=high,
        needs_references=any(d.needs_references for d in each),
        deterministic=all(d.deterministic for d in each),
        min_texts_per_second=min(d.min_texts_per_second for d in each),
    )


def _with_models(reward: Reward, models: Sequence[Any]) -> Reward:
    return Reward(tuple(replace(term, model=model) for term, model in zip(reward.terms, models, strict=True)))


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
    subject.score(subject.episodes[:1])  # whatever is loaded at the first call
    start = time.perf_counter()
    subject.score(subject.episodes[:1])
    subject.seconds_per_text = time.perf_counter() - start
    if subject.seconds_per_text > SLOW_TEXT:
        subject.size = SMALL_SAMPLE
    scores = subject.score(subject.sample)
    return f"{len(scores)} finite numbers, {scores.min():.4g} to {scores.max():.4g}"


def _determinism(subject: _Subject) -> str:
    sample = subject.sample
    subject.used, other = subject.fresh() or subject.reward, subject.fresh() or subject.reward
    subject.first = subject.score(sample, subject.used)
    second = subject.score(sample, other)
    if not subject.declared.deterministic and _apart(subject.first, second).any():
        subject.repeatable = False
        raise _NotApplicableError("declared as not deterministic, and no seed makes it repeat itself: neither will a run that uses it")
    try:
        _same(subject.first, second, sample, "at first", "from another object, as good as new,")
    except _FindingError:
        subject.repeatable = False
        raise
    return "equal scores from equal objects" + ("" if subject.declared.deterministic else ", under a seed (declared as not deterministic)")


def _state(subject: _Subject) -> str:
    _need_repeatable(subject)
    assert subject.first is not None
    sample = subject.sample
    others = [*(subject.episodes[subject.size : 2 * subject.size] or subject.episodes[1:3]), _long(sample[0])]
    again = subject.score(sample, subject.used)
    for _ in range(3):
        subject.score(others, subject.used)
    after = subject.score(sample, subject.used)
    try:
        _same(subject.first, again, sample, "at first", "at the second call")
        _same(subject.first, after, sample, "at first", "after other texts were scored")
    except _FindingError:
        subject.repeatable = False
        raise
    return "calls leave nothing behind"


def _batch_equals_singles(subject: _Subject) -> str:
    _need_repeatable(subject)
    sample = subject.sample
    batch = subject.score(sample)
    singles = np.array([subject.score([episode])[0] for episode in sample])
    _same(batch, singles, sample, "in a batch", "alone")
    return f"{len(sample)} texts score the same together and alone"


def _order(subject: _Subject) -> str:
    _need_repeatable(subject)
    sample = subject.sample
    order = np.random.default_rng(0).permutation(len(sample))
    before = subject.score(sample)
    after = subject.score([sample[i] for i in order])
    _same(before[order], after, [sample[i] for i in order], "in order", "shuffled")
    return "the order of the batch does not matter"


def _padding(subject: _Subject) -> str:
    _need_repeatable(subject)
    sample = subject.sample
    alone = subject.score(sample)
    beside = subject.score([*sample, _long(sample[0])])[:-1]
    _same(alone, beside, sample, "without", "with a very long text beside it")
    return "a very long text in the batch changes no other score"


def _batch_untouched(subject: _Subject) -> str:
    """Call the models themselves: the border between them and the rest passes a copy of the list."""
    for term in subject.reward.terms:
        batch = [replace(e, metadata=copy.deepcopy(m)) for e, m in zip(subject.sample, subject.metadata, strict=False)]
        given = list(batch)
        if isinstance(term.model, CompositeRewardModel):
            term.model.score_terms(batch)
        elif term.serving or hasattr(term.model, "serving"):  # with retries, which only the term makes
            term.score(batch)
        elif inspect.iscoroutinefunction(term.model.score):
            run_in_background(term.model.score(batch))
        else:
            term.model.score(batch)
        if len(batch) != len(given) or any(now is not then for now, then in zip(batch, given, strict=True)):
            raise _FindingError(f"changes the list of episodes that it is given ({len(given)} before, {len(batch)} after)")
        for episode, before in zip(batch, subject.metadata, strict=False):
            if episode.metadata != before:
                raise _FindingError(f"changes an episode's metadata: {before} before, {episode.metadata} after")
    return "neither the list nor an episode's metadata is changed"


def _hostile_texts(subject: _Subject) -> str:
    example = subject.episodes[0]
    for name, text in HOSTILE_TEXTS.items():
        ids = tuple(range(3, 3 + min(len(text.split()), 100)))
        variants = {"": replace(example, continuation=text, continuation_ids=ids)}
        if len(text) < 1000:
            variants[" as the prompt"] = replace(example, prompt=text, prompt_ids=ids)
            variants[" as prompt and continuation, without token ids"] = replace(
                example, prompt=text, continuation=text, prompt_ids=(), continuation_ids=()
            )
        for where, episode in variants.items():
            try:
                subject.score([episode])
            except TextgymError as error:
                raise _FindingError(f"{name}{where}: {' '.join(str(error).split())}") from None
    return f"finite on {len(HOSTILE_TEXTS)} kinds: empty, one character, very long, emoji, right-to-left, control characters, ..."


def _references(subject: _Subject) -> str:
    bare = [replace(e, references=()) for e in subject.episodes[:SMALL_SAMPLE]]
    if not subject.declared.needs_references:
        try:
            subject.score(bare)
        except TextgymError as error:
            raise _FindingError(f"does not declare needs_references = True, but: {' '.join(str(error).split())}") from None
        return "not needed"
    try:
        subject.score(bare)
    except TextgymError:
        return "needed, and refused in one line where they are missing"
    raise _FindingError("declares needs_references, but scores episodes that have none")


def _rebuilding(subject: _Subject) -> str:
    sample = subject.episodes[:SMALL_SAMPLE]
    try:
        copied, how = (
            _with_models(subject.reward, pickle.loads(pickle.dumps([t.model for t in subject.reward.terms]))),
            "pickled and read back",
        )
    except Exception as error:
        if not subject.by_name:
            raise _FindingError(f"can be neither pickled ({one_line(error)}) nor built again from a name") from None
        copied, how = make_reward(subject.spec, **subject.options), "cannot be pickled, but built again from its name and options"
    scores = subject.score(sample, copied)
    if subject.repeatable:
        _same(subject.score(sample), scores, sample, "by the object", f"when {how}")
    return how


def _fork(subject: _Subject) -> str:
    if "fork" not in multiprocessing.get_all_start_methods():
        raise _NotApplicableError("this system cannot fork")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise _NotApplicableError("CUDA is in use, which no forked process can use: start workers by spawn")
    sample = subject.episodes[:SMALL_SAMPLE]
    expected = subject.score(sample)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_score_in_child, args=(subject, sample, sender), daemon=True)
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that the process has threads is what is tested
        worker.start()
    sender.close()
    patience = PATIENCE + 10 * len(sample) * subject.seconds_per_text
    try:
        if not receiver.poll(patience):
            raise _FindingError(f"no scores from a forked worker within {patience:.0f} s")
        try:
            answer = receiver.recv()
        except EOFError:
            worker.join(1)
            raise _FindingError(f"the forked worker died (exit code {worker.exitcode})") from None
        worker.join(1)
    finally:
        worker.kill()
        worker.join()
        receiver.close()
    if isinstance(answer, str):
        raise _FindingError(f"in a forked worker: {answer}")
    if subject.repeatable:
        _same(expected, answer, sample, "here", "in a forked worker")
    return "a forked worker gives the same scores"


def _score_in_child(subject: _Subject, sample: list[Episode], sender: Any) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # as torch's own workers do: its pool of threads does not survive a fork
    try:
        sender.send(subject.score(sample))
    except Exception as error:
        sender.send(" ".join(str(error).split()))


def _memory(subject: _Subject) -> str:
    sample = subject.sample
    seconds = subject.seconds_per_text * len(sample)
    if seconds > MEMORY_SECONDS / 2:
        raise _NotApplicableError("too slow to be repeated")
    for _ in range(3):
        subject.score(sample)
    give_back_free_memory()  # or a leak would hide in pages that other work of this process has left
    before = resident_memory()
    if before is None:
        raise _NotApplicableError("this system does not tell the memory in use")
    after, n, start = before, 0, time.perf_counter()
    for i in range(MEMORY_BATCHES):
        subject.score([replace(e, continuation=f"{e.continuation} {i}") for e in sample])
        n += len(sample)
        after = resident_memory() or before
        if after - before > MEMORY_GROWTH:
            give_back_free_memory()
            after = resident_memory() or before
            if after - before > MEMORY_GROWTH:
                raise _FindingError(f"{after - before:.0f} MiB more in use after {n} other texts; {after:.0f} MiB in all")
        if time.perf_counter() - start > MEMORY_SECONDS:
            break
    return f"{after:.0f} MiB in use by the process, {max(0.0, after - before):.0f} more after {n} other texts"


def _speed(subject: _Subject) -> str:
    texts = (subject.episodes * (SPEED_SIZES[-1] // len(subject.episodes) + 1))[: SPEED_SIZES[-1]]
    texts = [replace(e, metadata={**e.metadata, "speed": i}) for i, e in enumerate(texts)]  # different for whoever keeps scores
    found: dict[int, float] = {}
    for size in SPEED_SIZES:
        if found and size / max(found.values()) > PATIENCE:
            break
        start, n, elapsed = time.perf_counter(), 0, 0.0
        while n < size or (elapsed < SPEED_SECONDS and n < SPEED_TEXTS):
            subject.score([texts[(n + i) % len(texts)] for i in range(size)])
            n += size
            elapsed = time.perf_counter() - start
        found[size] = n / elapsed
    shown = "texts/s: " + ", ".join(f"{_rounded(speed)} at {size}" for size, speed in found.items())
    if max(found.values()) < subject.min_speed:
        raise _FindingError(f"{shown}; fewer than {subject.min_speed:g}")
    return shown


def _range(subject: _Subject) -> str:
    low, high = subject.declared.low, subject.declared.high
    slack = TOLERANCE * (1 + max((abs(x) for x in (low, high) if math.isfinite(x)), default=0.0))
    if subject.least < low - slack or subject.most > high + slack:
        outside = subject.least if subject.least < low - slack else subject.most
        raise _FindingError(f"declares {low:g} to {high:g}, but gave {outside:.6g}")
    if math.isinf(low) and math.isinf(high):
        raise _NotApplicableError("declares no range (low, high)")
    return f"{low:g} to {high:g} declared, {subject.least:.4g} to {subject.most:.4g} seen in {subject.n_seen:,} scores"


CHECKS: dict[str, Callable[[_Subject], str]] = {
    "scores": _scores,
    "determinism": _determinism,
    "state": _state,
    "batch = singles": _batch_equals_singles,
    "order": _order,
    "padding": _padding,
    "batch untouched": _batch_untouched,
    "hostile texts": _hostile_texts,
    "references": _references,
    "rebuilding": _rebuilding,
    "fork": _fork,
    "memory": _memory,  # before the speed: what keeps every text would fill the memory there
    "speed": _speed,
    "range": _range,  # last: it looks at every score seen before
}


# --- help ----------------------------------------------------------------------------------------------------------------------------


def _apart(first: Array, second: Array) -> Any:
    """Return where two vectors of scores differ by more than rounding, (n,) bool; dropped episodes (nan) differ from nothing."""
    return np.abs(first - second) > TOLERANCE * (1 + np.abs(first))


def _same(first: Array, second: Array, episodes: Sequence[Episode], how: str, other: str) -> None:
    apart = np.flatnonzero(_apart(first, second))
    if apart.size:
        i = int(apart[0])
        raise _FindingError(f"{first[i]:.6g} {how}, {second[i]:.6g} {other}: {episodes[i].text[:60]!r}")


def _long(episode: Episode) -> Episode:
    """Return an episode that is longer than what people write for a task; its token ids fit into a small model's context."""
    return replace(episode, continuation=" and so on" * 200, continuation_ids=tuple(range(3, 103)))


def _need_repeatable(subject: _Subject) -> None:
    if not subject.repeatable:
        raise _NotApplicableError("the same call gives other scores anyway")


def _rounded(speed: float) -> str:
    """Return a speed with two significant digits: it was measured once."""
    digits = 1 - math.floor(math.log10(speed))
    return f"{round(speed, digits):,.{max(0, digits)}f}"
