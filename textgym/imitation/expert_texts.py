"""Expert texts: what people wrote, as the tokens that a policy might have chosen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from textgym.episode import Episode, reference_continuation
from textgym.errors import InvalidArgumentError
from textgym.learning.given_texts import reference_texts
from textgym.mdp import TokenMDP
from textgym.plugin_manager import installed_plugins
from textgym.policies.generation import GeneratedText
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, Split
from textgym.rewards.reward import make_reward
from textgym.tasks import Prompt, Task, make_task
from textgym.tokenization import Vocabulary


def expert_texts_of(task: Task) -> "JudgementSet[ExpertText]":
    """Return the references of a task as expert texts, in the task's own splits."""
    names: tuple[Split, ...] = ("train", "validation", "test")
    items = [
        ExpertText(
            id=f"{split}-{number}-{place}",
            prompt=prompt.text,
            text=reference_continuation(prompt.text, reference),
            source=task.name,
            split=split,
        )
        for split in names
        if split in task.prompts
        for number, prompt in enumerate(task.split(split))
        for place, reference in enumerate(prompt.references)
        if reference_continuation(prompt.text, reference).strip()
    ]
    if not items:
        raise InvalidArgumentError(f"task {task.name!r} has no references, so there is nothing to imitate: give a file of expert texts")
    return JudgementSet("texts", tuple(items))


def expert_tokens(texts: "JudgementSet[Any]", task: Task, vocabulary: Vocabulary, max_new_tokens: int) -> list[GeneratedText]:
    """Return expert texts as if they had been written in a task: cut at the budget, shorter ones ended; rewards are 0.

    Texts with a token that the task does not allow are left out.

    Args:
        texts: Of kind "texts".
        task: Says what ends a text and which tokens are allowed; its own prompts are not asked for.
        vocabulary: Of the policy.
        max_new_tokens: The budget.
    """
    if texts.kind != "texts":
        raise InvalidArgumentError(f"an expert's texts are judgements of kind 'texts', got {texts.kind}: give a file with texts alone")
    if not texts.items:
        raise InvalidArgumentError("there is no expert text to imitate: the file is empty, or none of its texts is in the split 'train'")
    prompts = [Prompt(item.prompt, (item.prompt + item.text,)) for item in texts.items]
    found = reference_texts(bare_environment(prompts, task, vocabulary, max_new_tokens))
    if not found:
        raise InvalidArgumentError(
            f"task {task.name!r} allows the tokens of none of the {len(texts)} expert texts: nothing can be imitated"
        )
    return found


def bare_environment(prompts: Sequence[Prompt], task: Task, vocabulary: Vocabulary, max_new_tokens: int, n_rows: int = 64) -> TokenMDP:
    """Return an environment with other prompts than the task's and no reward."""
    bare = replace(task, prompts={"train": list(prompts)}, labels=())
    return TokenMDP(bare, vocabulary, make_reward(unscored), n_rows, "train", max_new_tokens)


def unscored(episodes: Sequence[Episode]) -> list[float]:
    """Return 0 for every text: nobody asks what it is worth."""
    return [0.0] * len(episodes)


def load_experts(source: str) -> "JudgementSet[ExpertText]":
    """Return the expert texts of a file or registered set, or the references of a task by name."""
    plugins = installed_plugins()
    if not Path(source).exists() and not plugins.knows("judgement", source):
        return expert_texts_of(make_task(source))
    found = load_judgements(source)
    if found.kind != "texts":
        raise InvalidArgumentError(
            f"{source} holds {found.kind}, not expert texts: give a file with texts alone, or fit by `textgym reward fit`"
        )
    return found
