"""Task: prompts by split, the token budget, and the reward and model used when the user names none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from textgym.errors import InvalidArgumentError, UnknownNameError
from textgym.plugin_manager import installed_plugins

NAMESPACE = "textgym"


@dataclass(frozen=True)
class Prompt:
    """The start of an episode: a text, its reference texts (possibly none), and whatever else the task knows about it."""

    text: str
    references: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


Expert: TypeAlias = Callable[[Prompt, str], str]
"""What the expert would write after a prompt and a continuation so far, from any one that can be written; "" to end there."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be written: everything about an environment but the policy.

    Attributes:
        name: Versioned name, "ReviewContinuation-v0".
        prompts: Split ("train", "validation", "test") → its prompts; plain strings are taken as prompts without references.
        model: Language model whose tokens are the actions, unless the user names another.
        max_new_tokens: Token budget of the continuation; using it up ends the episode (terminated, finish reason "length").
        reward: The reward used when none is given: a name, a text with options, or a mapping name → weight.
        gold: Name of an independent reward, reported by comparisons and never trained on; "" for none.
        stop: Strings that end the episode as EOS does; the text is cut before them.
        allowed_tokens: Tokens the policy may choose from, as the vocabulary writes them or as texts of one token each; empty for every token
            the model allows.
        perfect_score: The greatest possible reward, where there is one.
        may_end: Whether EOS may be chosen; False leaves the end to the budget and to stop strings.
        labels: The answers of a classification, without spaces around them; the first reference of every prompt is the right one.
            Training logs and evaluations then have accuracy, precision, recall and F1. Empty for any other task.
        offline: Registered name, or file, of texts for its prompts with their rewards, which offline agents learn from; "" for none.
        expert: Who knows what to write next, whatever was written so far; None for nobody. A task with labels has one anyway.
    """

    name: str
    prompts: Mapping[str, Sequence[Prompt | str]]
    model: str = "reviews"
    max_new_tokens: int = 24
    reward: Any = None
    gold: str = ""
    stop: tuple[str, ...] = ()
    allowed_tokens: tuple[str, ...] = ()
    perfect_score: float | None = None
    may_end: bool = True
    labels: tuple[str, ...] = ()
    offline: str = ""
    expert: Expert | None = None

    def __post_init__(self) -> None:
        for split, prompts in self.prompts.items() if self.labels else ():
            for prompt in prompts:
                right = "" if isinstance(prompt, str) else right_label(prompt)
                if right not in self.labels:
                    raise InvalidArgumentError(
                        f"task {self.name!r} has the labels {', '.join(self.labels)}, but its split {split!r} has a prompt whose first "
                        f"reference is {right!r}: the first reference must be the right label"
                    )

    def split(self, name: str) -> list[Prompt]:
        """Return the prompts of a split; raises with the splits that exist."""
        if name not in self.prompts:
            raise UnknownNameError("split", name, self.prompts)
        prompts = [Prompt(p) if isinstance(p, str) else p for p in self.prompts[name]]
        if not prompts:
            raise InvalidArgumentError(f"task {self.name!r} has no prompts in its split {name!r}")
        return prompts


def right_label(prompt: Prompt) -> str:
    """Return the right label of a prompt of a task with labels: its first reference without the space before it; "" without references."""
    return prompt.references[0].strip() if prompt.references else ""


def expert_of(task: Task) -> Expert | None:
    """Return the task's expert; for a task with labels without one of its own, who names the right label; else None."""
    if task.expert is None and task.labels:
        return lambda prompt, continuation: "" if continuation else f" {right_label(prompt)}"
    return task.expert


def environment_id(task_name: str) -> str:
    """Return the Gymnasium id of a task: its name, in the namespace `textgym/` unless it has one of its own."""
    return task_name if "/" in task_name else f"{NAMESPACE}/{task_name}"


def find_task_name(name: str) -> str:
    """Return the registered name meant by a short ("ReviewContinuation") or full ("textgym/ReviewContinuation-v0") one.

    Without a version the newest is meant. A member of a family has one name only, "family:member".
    """
    plugins = installed_plugins()
    bare = name.removeprefix(f"{NAMESPACE}/")
    if plugins.knows("task", bare):
        return plugins.find("task", bare).name
    known = plugins.registrations("task")
    versions = [k for k in known if k.rpartition("-v")[0] == bare and k.rpartition("-v")[2].isdigit()]
    return max(versions, key=lambda k: int(k.rpartition("-v")[2])) if versions else plugins.find("task", name).name  # which raises


def make_task(name: str, member: str | None = None, **options: Any) -> Task:
    """Build a registered task.

    Args:
        name: Its short or full name, "family:member", or a family's name.
        member: Which task of a family, where `name` is that of the family.
        **options: Options of the task's factory.
    """
    plugins = installed_plugins()
    registered = find_task_name(name if member is None else f"{name}:{member}")
    task = plugins.make("task", registered, options)
    if not isinstance(task, Task):
        raise InvalidArgumentError(f"task {name!r} of {plugins.find('task', registered).provenance} returned {task!r}, not a textgym.Task")
    return task
