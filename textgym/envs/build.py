"""Building a TokenMDP and its spaces from what a user passes to `gym.make`, `gym.make_vec` and `make_vec_env`."""

from typing import Any

import numpy as np
from gymnasium import spaces

from textgym.envs.token_space import TokenSpace
from textgym.errors import InvalidArgumentError
from textgym.mdp import TokenMDP
from textgym.rewards.reward import make_reward
from textgym.tasks import Task, make_task
from textgym.tokenization import Vocabulary, load_vocabulary


def build_mdp(
    task: str | Task,
    n_rows: int,
    reward: Any = None,
    model: str | Vocabulary | None = None,
    split: str = "train",
    max_new_tokens: int | None = None,
    drop_failed: bool = False,
    **task_options: Any,
) -> TokenMDP:
    """Return the transition core of `n_rows` episodes of a task.

    Args:
        task: A `Task`, or a registered task's short or full name.
        n_rows: Number of episodes side by side.
        reward: What `textgym.make_reward` takes; the task's own by default.
        model: The language model (name, directory, ...) whose tokens are the actions; the task's own by default.
        split: Which prompts to draw: "train", "validation" or "test".
        max_new_tokens: Token budget; the task's own by default.
        drop_failed: See `TokenMDP`.
        **task_options: Options of the registered task's factory.
    """
    if isinstance(task, str):
        task = make_task(task, **task_options)
    elif task_options:
        raise InvalidArgumentError(f"options {sorted(task_options)} fit a task given by name, not a Task object")
    spec = task.reward if reward is None else reward
    if spec is None:
        raise InvalidArgumentError(f"task {task.name!r} has no reward of its own: pass reward=")
    vocabulary = model if isinstance(model, Vocabulary) else load_vocabulary(task.model if model is None else model)
    return TokenMDP(task, vocabulary, make_reward(spec), n_rows, split, max_new_tokens, drop_failed)


def observation_space(mdp: TokenMDP) -> spaces.Dict:
    """Return the space of one prefix: `input_ids` and `attention_mask`, int64 (L,)."""
    shape = (mdp.max_length,)
    return spaces.Dict(
        {
            "input_ids": spaces.Box(0, mdp.vocabulary.size - 1, shape, np.int64),
            "attention_mask": spaces.Box(0, 1, shape, np.int64),
        }
    )


def action_space(mdp: TokenMDP) -> TokenSpace:
    """Return the space of the next token."""
    return TokenSpace(mdp.allowed_mask)
