"""The tasks "reasoning-gym:<dataset>": the procedural problems of the package reasoning-gym, scored by their own `score_answer`."""

import dataclasses
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import textgym

logger = logging.getLogger("textgym")

FAMILY = "reasoning-gym"
NEEDS_DATASETS = frozenset({"composite"})  # made of others: cannot be built by name alone
RUNS_ANSWERS = frozenset(
    {
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Data sets whose `score_answer` hands the answer to Python's `eval`, by itself or through sympy (reasoning-gym 0.1.25)."""
QUESTION = "{question}"


def _package() -> Any:
    try:
        import reasoning_gym
    except ImportError:
        raise textgym.MissingExtraError(f"the tasks {FAMILY}:...", FAMILY) from None
    return reasoning_gym


def datasets() -> list[str]:
    """Return the names of the data sets, sorted."""
    return sorted(set(_package().factory.DATASETS) - NEEDS_DATASETS)


@lru_cache(maxsize=64)
def _dataset(name: str, config: str) -> Any:
    """Return a data set; `config` is JSON, so that it can be a key."""
    package = _package()
    if name not in datasets():
        raise textgym.UnknownNameError("reasoning-gym data set", name, datasets())
    try:
        return package.create_dataset(name, **json.loads(config))
    except (AssertionError, TypeError, ValueError) as error:
        raise textgym.InvalidArgumentError(f"{FAMILY}:{name} cannot be made with {config}: {error}") from None


class ReasoningGym:
    """Score of the answer by the reasoning-gym data set that asked the question; 0 (wrong) .. 1 (right).

    The data set, and the problem, come from the episode's metadata: `dataset`, `config`, `index`, and `entry` where it is known (without
    it the problem is made again, which gives the same). The answer is the continuation without the white space around it.

    An answer that makes the data set's own scorer raise is one that it cannot read: 0, with a line in the log.

    Args:
        tag: Where to find the answer in the continuation: "answer" for the text in the last <answer>...</answer>, and 0 where there is
            none; "" for the whole continuation.
        run_answers: Some data sets hand the answer to Python's `eval`, which can do anything to the computer. Without True they are refused.
    """

    low, high = 0.0, 1.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, tag: str = "", run_answers: bool = False) -> None:
        self.tag, self.run_answers = tag, run_answers

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the scores, (n,), in 0..1."""
        return [self._score(episode) for episode in episodes]

    def _score(self, episode: textgym.Episode) -> float:
        missing = [key for key in ("dataset", "config", "index") if key not in episode.metadata]
        if missing:
            raise textgym.InvalidArgumentError(
                f"{FAMILY} scores the episodes of tasks {FAMILY}:..., whose metadata has dataset, config and index; {missing[0]} is missing"
            )
        name = str(episode.metadata["dataset"])
        _refuse_to_run(name, self.run_answers)
        dataset = _dataset(name, json.dumps(dict(episode.metadata["config"]), sort_keys=True))
        entry = episode.metadata.get("entry") or dataset[int(episode.metadata["index"])]
        answer = episode.continuation.strip() if not self.tag else _package().utils.extract_answer(episode.continuation, self.tag)
        try:
            return float(dataset.score_answer(answer, dict(entry)))
        except Exception as error:  # whatever a parser of model output may raise
            logger.warning("%s:%s cannot read the answer %.80r (%s): scored 0", FAMILY, name, answer, type(error).__name__)
            return 0.0


def _refuse_to_run(name: str, run_answers: bool) -> None:
    if name in RUNS_ANSWERS and not run_answers:
        raise textgym.InvalidArgumentError(
            f"{FAMILY}:{name} hands the model's answer to Python's eval, which can do anything to this computer: "
            f"pass run_answers=True if that is all right"
        )


def reasoning_gym_task(
    dataset: str,
    size: int = 512,
    held_out: int = 128,
    seed: int = 0,
    template: str = QUESTION + "\n",
    tag: str = "",
    longest: int | None = None,
    run_answers: bool = False,
    **config: Any,
) -> textgym.Task:
    """Answer problems that a reasoning-gym data set makes.

    ## Description
    The prompt is a problem, the continuation its answer.

    ## Action Space
    `Discrete(V)`: the next token of the language model in use, whichever that is.

    ## Observation Space
    `input_ids` and `attention_mask`, int64 (L,), right-padded.

    ## Starting State
    A problem of the split in use. The splits are consecutive problems of one generator: the first `size` are for training, the next
    `held_out` for validation, the next for test. (Generators with neighbouring seeds would make the same problems: many draw problem i
    from seed + i.) A problem that occurs again is left out, so held-out prompts never occur in training.

    ## Reward
    "reasoning-gym": the data set's own `score_answer`, 0 to 1.

    ## Episode End
    End-of-text token, or `max_new_tokens` chosen: by default the length of the longest answer in bytes, at most 256, so that any
    tokenizer with a token per byte can write it.

    ## Information
    `prompt`, `continuation`, `finish_reason`, `reward_terms` after the last step.

    ## Arguments
    `size` (512), `held_out` (128), `seed` (0); `template`, the prompt with {question} in it; `tag`, where the answer stands ("" for the
    whole continuation, "answer" for <answer>...</answer>); `longest`, which leaves out prompts of more characters (none by default; a
    prompt too long for the model's context is an error); `run_answers`, needed for data sets that evaluate answers as Python; and every
    setting of the data set's own configuration.

    ## References
    Stojanovski et al., "Reasoning Gym: Reasoning Environments for Reinforcement Learning with Verifiable Rewards", arXiv:2505.24760.

    ## Version History
    That of the package reasoning-gym, which makes the problems.
    """
    name = f"{FAMILY}:{dataset}"
    for option, value in (("size", size), ("held_out", held_out)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise textgym.InvalidArgumentError(f"{name}: {option} must be an integer of at least 1, got {value!r}")
    if not isinstance(template, str) or QUESTION not in template:
        raise textgym.InvalidArgumentError(f"{name}: template must contain {QUESTION}, got {template!r}")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int)):
        raise textgym.InvalidArgumentError(f"{name}: longest must be None or a number of characters, got {longest!r}")
    _refuse_to_run(dataset, run_answers)
    try:
        settings = json.dumps({**config, "seed": seed, "size": size + 2 * held_out}, sort_keys=True)
    except TypeError as error:
        raise textgym.InvalidArgumentError(f"{name}: a setting must be plain data: {error}") from None
    splits, budget = _prompts(dataset, settings, size, held_out, template, longest)
    options = [f"tag={json.dumps(tag)}"] * bool(tag) + ["run_answers=true"] * run_answers
    reward = f"{FAMILY}({', '.join(options)})" if options else FAMILY
    marks = len(f"<{tag}></{tag}>") if tag else 0
    return textgym.Task(name, splits, max_new_tokens=budget + marks, reward=reward, perfect_score=1.0)


@lru_cache(maxsize=8)
def _prompts(
    dataset: str, settings: str, size: int, held_out: int, template: str, longest: int | None
) -> tuple[Mapping[str, Sequence[textgym.Prompt]], int]:
    """Return the prompts by split, and the bytes of the longest answer with its end, at most 256."""
    problems, config = _dataset(dataset, settings), json.loads(settings)
    ranges = {"train": range(size), "validation": range(size, size + held_out), "test": range(size + held_out, size + 2 * held_out)}
    seen: set[str] = set()
    splits: dict[str, list[textgym.Prompt]] = {split: [] for split in ranges}
    n_bytes = 0
    for split, indices in ranges.items():
        for index in indices:
            entry = problems[index]
            text = template.replace(QUESTION, entry["question"])
            if text in seen or (longest is not None and len(text) > longest):
                continue
            seen.add(text)
            answer = entry["answer"]
            n_bytes = max(n_bytes, len(str(answer).encode()) if answer is not None else 64)
            metadata = {"dataset": dataset, "config": config, "index": index, "entry": entry}
            splits[split].append(textgym.Prompt(text, () if answer is None else (str(answer),), metadata))
    for split, prompts in splits.items():
        if not prompts:
            why = "every one occurs before" if longest is None else f"every one occurs before, or is longer than {longest} characters"
            raise textgym.InvalidArgumentError(f"{FAMILY}:{dataset} leaves no {split} problem ({why}): change size, held_out or longest")
    return splits, min(256, n_bytes + 1)


def task_factory(dataset: str) -> Callable[..., textgym.Task]:
    """Return the factory of one data set's task, whose signature also names the settings of its configuration."""

    def factory(**options: Any) -> textgym.Task:
        return reasoning_gym_task(dataset, **options)

    ours = [p for p in inspect.signature(reasoning_gym_task).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    named = {p.name for p in ours}
    theirs = [f.name for f in dataclasses.fields(_package().factory.DATASETS[dataset][1]) if f.name not in named]
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in theirs]
    factory.__signature__ = inspect.Signature([*ours, *parameters])  # type: ignore[attr-defined]  # what inspect.signature reads
    factory.__doc__ = reasoning_gym_task.__doc__
    return factory


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register(FAMILY, ReasoningGym)


@textgym.hookimpl
def register_tasks(register: Any) -> None:
    """Register the family."""
    register(FAMILY, textgym.Family(datasets, task_factory, "Problems of a reasoning-gym data set, scored by it"))
