"""TRL: rewards of textgym as its `reward_funcs`, its reward functions as rewards of textgym, tasks as its data sets."""

import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, MissingExtraError, RewardError, one_line
from textgym.interop.columns import REFERENCES, check_references, read_metadata, read_references, row_of
from textgym.interop.messages import continuation_text, prompt_text
from textgym.rewards.protocol import Array, RewardSpec
from textgym.rewards.reward import Reward, make_reward
from textgym.rewards.serving import run_in_background
from textgym.rewards.term import RewardTerm
from textgym.tasks import Task, make_task

if TYPE_CHECKING:
    from datasets import Dataset

TRAINER_ARGUMENTS = ("trainer_state", "log_extra", "log_metric", "environments")  # what GRPOTrainer passes beside the columns (TRL 1.16)


class TrlRewardFunction:
    """A reward of textgym as TRL calls it: `reward_func(prompts, completions, completion_ids, **columns) -> list of numbers or None`.

    Prompts and completions are texts or lists of messages. The other columns of the data set become the episode's metadata; the column
    of references becomes its references. A text that the reward gave up (served with `on_failure="drop"`) is None, which TRL leaves out.
    Where the reward is a sum, the mean of every term is logged as "reward_terms/NAME" by TRL's own logger.

    Attributes:
        reward: The reward.
        references_column: Where the reference texts stand, one text or a list per row.
    """

    def __init__(self, reward: Reward, references_column: str = REFERENCES) -> None:
        self.reward, self.references_column = reward, references_column
        self.__name__ = reward.name  # by which TRL logs it

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return the score of every completion; None where it was given up."""
        episodes = self.episodes(prompts, completions, completion_ids, **columns)
        scores, terms = self.reward.score_terms(episodes)
        if log_metric is not None and len(terms) > 1:
            for name, values in terms.items():
                if np.isfinite(values).any():
                    log_metric(f"reward_terms/{name}", float(np.nanmean(values)))
        return [None if math.isnan(score) else score for score in scores.tolist()]

    def episodes(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None = None, **columns: Any
    ) -> list[Episode]:
        """Return what TRL passes as episodes."""
        n = len(prompts)
        cells = {name: values for name, values in columns.items() if name not in TRAINER_ARGUMENTS}
        lengths = {"completions": len(completions), **{name: len(values) for name, values in cells.items()}}
        for name, length in lengths.items():
            if length != n:
                raise InvalidArgumentError(f"expected one of {name} for each of {n} prompts, got {length}")
        check_references(self.reward, self.references_column, list(cells))
        references = cells.pop(self.references_column, [None] * n)
        ids = [()] * n if completion_ids is None else [tuple(int(i) for i in row) for row in completion_ids]
        return [
            Episode(
                prompt_text(prompts[i]),
                continuation_text(completions[i]),
                continuation_ids=ids[i],
                references=read_references(references[i]),
                metadata=read_metadata({name: values[i] for name, values in cells.items()}),
            )
            for i in range(n)
        ]


def reward_function(spec: "RewardSpec | Reward", references_column: str = REFERENCES, **options: Any) -> TrlRewardFunction:
    """Return any reward as one of TRL's `reward_funcs`.

    Args:
        spec: What `textgym.make_reward` takes: a registered name, a text such as "human-rating - 0.5*repetition", an object, ...
        references_column: The data set's column of reference texts.
        **options: Settings of the reward.

    `GRPOTrainer(model, reward_funcs=reward_function("human-rating"), ...)`.
    """
    return TrlRewardFunction(make_reward(spec, **options), references_column)


class TrlReward:
    """A TRL reward function as a reward model.

    Where the function returns None ("not applicable"), the score is nan, which is how textgym marks an episode without a score: learners
    that can (`EpisodeRolloutBuffer`, the bundled agents) leave it out, an environment for any other raises. It is never a silent 0. In a
    weighted sum, an episode without one of its terms has no score either (TRL adds up the rest).

    Args:
        function: `reward_func(prompts, completions, **columns)`, plain or `async`.
        conversational: True shows it messages, `[{"role": "user", "content": ...}]`, in place of texts.
    """

    def __init__(self, function: Callable[..., Any], conversational: bool = False) -> None:
        if not callable(function):
            raise InvalidArgumentError(f"from_trl takes a reward function, got {function!r}")
        self.function, self.conversational = function, conversational
        self.name = str(getattr(function, "__name__", type(function).__name__))
        parameters = inspect.signature(function).parameters.values()
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._takes = [p.name for p in parameters if p.kind in by_name]
        self._needs = [p.name for p in parameters if p.kind in by_name and p.default is p.empty]

    def score(self, episodes: Sequence[Episode]) -> Array:
        """Return the scores, (n,); nan where the function returned None."""
        return self.score_terms(episodes)[0]

    def score_terms(self, episodes: Sequence[Episode], learning: bool = False) -> tuple[Array, dict[str, Array]]:
        """Return the scores, (n,), nan where the function returned None; there is nothing inside to tell of."""
        del learning  # nothing is learnt
        if not episodes:
            return np.zeros(0), {}
        border = RewardTerm(self.name, self)  # whose checks every reward passes; nan is for None alone
        try:
            raw = self.function(**self._arguments(episodes))
            raw = run_in_background(_awaited(raw)) if inspect.isawaitable(raw) else raw
            values = list(raw)
        except InvalidArgumentError:
            raise
        except Exception as error:
            raise RewardError(
                f"{border} raised {one_line(error)} - on {len(episodes)} episodes, first {episodes[0].text!r:.120}"
            ) from error
        if len(values) != len(episodes):
            raise RewardError(f"{border} must return {len(episodes)} scores for {len(episodes)} episodes, got {len(values)}")
        scores = np.full(len(episodes), np.nan)
        found = [i for i, value in enumerate(values) if value is not None]
        scores[found] = border.checked([values[i] for i in found], [episodes[i] for i in found]) if found else []
        return scores, {}

    def _arguments(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """Return what the function takes of all there is to pass."""
        columns = {name: [e.metadata.get(name) for e in episodes] for name in dict.fromkeys(n for e in episodes for n in e.metadata)}
        arguments: dict[str, Any] = {
            "trainer_state": None,
            "log_extra": _ignore,
            "log_metric": _ignore,
            REFERENCES: [list(e.references) for e in episodes],
            **columns,
            "prompts": [self._shown("user", e.prompt) for e in episodes],
            "completions": [self._shown("assistant", e.continuation) for e in episodes],
            "completion_ids": [list(e.continuation_ids) for e in episodes],
        }
        missing = [name for name in self._needs if name not in arguments]
        if missing:
            raise InvalidArgumentError(
                f"the reward function {self.name!r} needs the column {missing[0]!r}, which the episodes' metadata does not have; "
                f"it has {', '.join(columns) or 'none'}"
            )
        return arguments if self._takes_all else {name: value for name, value in arguments.items() if name in self._takes}

    def _shown(self, role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if self.conversational else text


def from_trl(function: Callable[..., Any], conversational: bool = False) -> Reward:
    """Return a TRL reward function as a reward, for environments, agents and everything else that takes one.

    Args:
        function: `reward_func(prompts, completions, **columns) -> list of numbers or None`. It is passed what it accepts of: `prompts`,
            `completions`, `completion_ids`, `references`, and one column for every key of the episodes' metadata.
        conversational: True shows it messages in place of texts.
    """
    return make_reward(TrlReward(function, conversational))


def dataset(task: str | Task, split: str = "train", conversational: bool = False, **options: Any) -> "Dataset":
    """Return a split of a task as a data set for TRL's trainers: "prompt", "references", and "metadata" as JSON.

    Args:
        task: A `Task`, or a registered task's name.
        split: Which prompts.
        conversational: True for prompts that are messages.
        **options: Options of the registered task.
    """
    try:
        from datasets import Dataset
    except ImportError:
        raise MissingExtraError("a data set for TRL", "trl") from None
    if isinstance(task, str):
        task = make_task(task, **options)
    elif options:
        raise InvalidArgumentError(f"options {sorted(options)} fit a task given by name, not a Task object")
    rows = [row_of(prompt) for prompt in task.split(split)]
    for row in rows if conversational else []:
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    return Dataset.from_list(rows)


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _ignore(*_: Any, **__: Any) -> None:
    """Take what a reward function wants logged; outside a trainer there is no log of TRL."""


__all__ = ["TrlReward", "TrlRewardFunction", "dataset", "from_trl", "reward_function"]
