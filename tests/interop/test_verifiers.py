"""verifiers: rewards as reward functions of its tasks, one trace at a time and a whole episode of them."""

import asyncio
import warnings
from typing import Any

import pytest

import textgym
from textgym.interop.verifiers import reward_function
from textgym.rewards import Serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    vf = pytest.importorskip("verifiers.v1")


class ReviewData(vf.TaskData):
    references: list[str] = []  # noqa: RUF012  # pydantic copies it
    source: str = "web"


quality = reward_function("vader", weight=2.0)


class Review(vf.Task[ReviewData]):
    rating = reward_function("human-rating", weight=0.5)
    text = reward_function("vader")


class Plain(vf.Task[ReviewData]):
    """A task whose reward comes from its configuration."""


def trace_of(task: Any, *replies: str, calls: Any = ()) -> Any:
    nodes = [vf.MessageNode(message=vf.UserMessage(content=task.data.prompt_text))]
    for i, reply in enumerate(replies):
        node = vf.MessageNode(
            parent=i, message=vf.AssistantMessage(content=reply), sampled=True, token_ids=[7, 8, 9], mask=[False, True, True]
        )
        nodes.append(node)
    trace_task = vf.TraceTask(type=type(task).__name__, data=task.data)
    return vf.Trace(task=trace_task, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes, calls=list(calls))


def direct(name: str, prompt: str, continuation: str) -> float:
    return float(textgym.make_reward(name).score([textgym.Episode(prompt, continuation)])[0])


def test_a_task_records_the_rewards_under_their_names_with_their_weights() -> None:
    task = Review(ReviewData(prompt="The movie"))
    trace = trace_of(task, " was a delight.")
    asyncio.run(task.score(trace))
    rating, text = direct("human-rating", "The movie", " was a delight."), direct("vader", "The movie", " was a delight.")
    assert {name: (r.score, r.weight) for name, r in trace.rewards.items()} == {"human-rating": (rating, 0.5), "vader": (text, 1.0)}
    assert trace.reward == 0.5 * rating + text


def test_a_configuration_names_a_reward_of_a_module() -> None:
    config = vf.TaskConfig(rewards={"mood": {"fn": f"{__name__}:quality", "weight": 3.0}})
    task = Plain(ReviewData(prompt="The movie"), config)
    trace = trace_of(task, " was a delight.")
    asyncio.run(task.score(trace))
    assert trace.rewards["mood"].value == 3.0 * direct("vader", "The movie", " was a delight.")


def test_the_trace_becomes_an_episode() -> None:
    data = ReviewData(prompt="Go on.", system_prompt="Be brief.", references=["yes"], source="book", idx=3)
    call = vf.ModelCall(finish_reason="length")
    assert quality.episode(data, trace_of(Review(data), " one", "two", calls=[call])) == textgym.Episode(
        "Be brief.\n\nGo on.", " one\n\ntwo", (), (8, 9, 8, 9), ("yes",), "length", {"source": "book", "idx": 3}
    )
    messages = ReviewData(prompt=[vf.UserMessage(content=[vf.TextContentPart(text="Hello")])])
    assert quality.episode(messages, trace_of(Review(messages))) == textgym.Episode("Hello\n\n", "", metadata={"source": "web"})


def test_all_traces_of_an_episode_are_scored_in_one_call_as_each_alone() -> None:
    sizes: list[int] = []

    def lengths(episodes: Any) -> list[float]:
        sizes.append(len(episodes))
        return [float(len(e.continuation)) for e in episodes]

    reward = reward_function(lengths, weight=-1.0)
    task = Review(ReviewData(prompt="The movie"))
    traces = [trace_of(task, "x" * n) for n in range(5)]
    assert asyncio.run(reward.record(traces)) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [t.rewards["lengths"].value for t in traces] == [0.0, -1.0, -2.0, -3.0, -4.0]
    assert [asyncio.run(reward(task.data, t)) for t in traces] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert sizes == [5, 1, 1, 1, 1, 1]


def test_a_text_that_was_given_up_is_an_error_of_the_trace() -> None:
    class Down:
        serving = Serving(batch_size=1, retries=0, on_failure="drop")

        def score(self, episodes: Any) -> list[float]:
            raise OSError("busy")

    class Broken(vf.Task[ReviewData]):
        down = reward_function(Down())

    task = Broken(ReviewData(prompt="The movie"))
    trace = trace_of(task, " was")
    with pytest.raises(vf.TaskError, match="gave up the text 'The movie was'"):
        asyncio.run(task.score(trace))
    assert trace.rewards == {"Down": None}


def test_bad_arguments_are_one_line() -> None:
    class Wants:
        needs_references = True

        def score(self, episodes: Any) -> list[float]:
            return [0.0 for _ in episodes]

    task = Review(ReviewData(prompt="The movie"))
    with pytest.raises(textgym.InvalidArgumentError, match="there is no column 'answer' among references, source"):
        reward_function(Wants(), references_field="answer").episode(task.data, trace_of(task, "x"))
    with pytest.raises(textgym.InvalidArgumentError, match="weight of reward 'vader' must be a finite number, got 'x'"):
        reward_function("vader", weight="x")  # type: ignore[arg-type]
