"""verifiers: rewards of textgym as the reward functions of its tasks, trace by trace and for a whole episode of traces."""

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import Any

from textgym.episode import Episode, FinishReason
from textgym.errors import InvalidArgumentError, MissingExtraError, RewardError
from textgym.interop.columns import REFERENCES, check_references, read_metadata, read_references
from textgym.interop.messages import SEPARATOR, continuation_text, prompt_text
from textgym.rewards.protocol import RewardSpec
from textgym.rewards.reward import Reward, make_reward


class VerifiersReward:
    """A reward of textgym as verifiers calls it: `await reward(task, trace) -> float`.

    An attribute of a `vf.Task` class, in place of a method with `@vf.reward`; or, at the top of a module, what a configuration names
    (`rewards={"quality": {"fn": "my_module:quality"}}`). `await reward.record(traces)` is for `Env.finalize`: it scores all traces of an
    episode in one call. The reward runs in a thread, one call at a time, so that a slow one does not hold up the event loop.

    The prompt is the task's (its system prompt before it), the continuation what the model said, all turns of it; fields that a
    task's data has beside those of `vf.TaskData` are metadata. A text that the reward gave up raises `RewardError`, which verifiers
    records as the trace's error; it is never a silent 0.

    Attributes:
        wrapped: The reward. (verifiers itself writes an attribute `reward`, its mark of a reward function.)
        references_field: Where in the task's data the reference texts stand.
        weight: Of the score in the trace's reward.
    """

    def __init__(self, reward: Reward, references_field: str = REFERENCES, weight: float = 1.0) -> None:
        try:
            import verifiers.v1 as vf
        except ImportError:
            raise MissingExtraError("a reward for verifiers", "verifiers") from None
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise InvalidArgumentError(f"the weight of reward {reward.name!r} must be a finite number, got {weight!r}")
        self.wrapped, self.references_field, self.weight = reward, references_field, float(weight)
        self.__name__ = reward.name  # by which the trace records it
        self._own_fields = frozenset(vf.TaskData.model_fields)
        self._lock = threading.Lock()
        vf.reward(self, weight=self.weight)

    async def __call__(self, task: Any, trace: Any) -> float:
        """Return the score of one trace."""
        return (await self.score([trace], [task]))[0]

    async def score(self, traces: Sequence[Any], tasks: Sequence[Any] | None = None) -> list[float]:
        """Return the scores of several traces, in one call of the reward.

        Args:
            traces: Finished traces.
            tasks: The data of their tasks; those that the traces carry by default.
        """
        data = [trace.task.data for trace in traces] if tasks is None else tasks
        episodes = [self.episode(task, trace) for task, trace in zip(data, traces, strict=True)]
        scores = await asyncio.to_thread(self._scores, episodes)
        for score, episode in zip(scores, episodes, strict=True):
            if math.isnan(score):
                raise RewardError(f"reward {self.wrapped.name!r} gave up the text {episode.text!r:.120}")
        return scores

    async def record(self, traces: Sequence[Any]) -> list[float]:
        """Score several traces in one call, and record each one's score in it under the reward's name, with the weight."""
        scores = await self.score(traces)
        for trace, score in zip(traces, scores, strict=True):
            trace.record_reward(self.__name__, score, self.weight)
        return scores

    def episode(self, task: Any, trace: Any) -> Episode:
        """Return a trace as an episode."""
        fields = {name: getattr(task, name) for name in {**type(task).model_fields, **(task.model_extra or {})}}
        cells = {name: value for name, value in fields.items() if name not in self._own_fields}
        check_references(self.wrapped, self.references_field, list(cells))
        references = read_references(cells.pop(self.references_field, None))
        before = task.system_prompt + SEPARATOR if task.system_prompt else ""
        said = [node for node in trace.nodes if node.sampled]
        tokens = [i for node in said for i, chosen in zip(node.token_ids, node.mask, strict=False) if chosen]
        reason: FinishReason = "length" if trace.is_truncated else "stop"
        return Episode(
            before + prompt_text(task.prompt or ""),
            continuation_text(trace.assistant_messages),
            continuation_ids=tuple(tokens),
            references=references,
            finish_reason=reason,
            metadata={**read_metadata(cells), **{name: fields[name] for name in ("idx", "id", "name") if fields.get(name) is not None}},
        )

    def _scores(self, episodes: Sequence[Episode]) -> list[float]:
        with self._lock:
            scores: list[float] = self.wrapped.score(episodes).tolist()
            return scores


def reward_function(
    spec: "RewardSpec | Reward", references_field: str = REFERENCES, weight: float = 1.0, **options: Any
) -> VerifiersReward:
    """Return any reward as a reward function of verifiers.

    Args:
        spec: What `textgym.make_reward` takes.
        references_field: The field of the task's data that holds reference texts.
        weight: Of the score in the trace's reward.
        **options: Settings of the reward.
    """
    return VerifiersReward(make_reward(spec, **options), references_field, weight)


__all__ = ["VerifiersReward", "reward_function"]
