"""TextVecEnv: the stable-baselines3 face, one batch instead of n processes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from textgym.envs.build import action_space, build_mdp, observation_space
from textgym.envs.render import ansi_text
from textgym.errors import InvalidArgumentError
from textgym.tasks import Task


class TextVecEnv(VecEnv):
    """n rows of `TextEnv` as a stable-baselines3 `VecEnv`: rows that end are reset in the same step (`terminal_observation` in the info).

    Args:
        task: As for `TextEnv`.
        n_envs: Number of rows.
        render_mode: None or "ansi".
        **options: As for `TextEnv`.
    """

    def __init__(self, task: str | Task, n_envs: int = 1, render_mode: str | None = None, **options: Any) -> None:
        if render_mode not in (None, "ansi"):
            raise InvalidArgumentError(f"render_mode of a vector environment must be None or 'ansi', got {render_mode!r}")
        self.mdp = build_mdp(task, n_envs, **options)
        self.render_mode = render_mode
        super().__init__(n_envs, observation_space(self.mdp), action_space(self.mdp))
        self._actions: np.ndarray[Any, Any] | None = None
        self._seeded = False

    def reset(self) -> VecEnvObs:
        """Begin an episode in every row, with the seeds of `seed(...)` and the prompts of `set_options({"prompt_index": i})`, if called."""
        for row, seed in enumerate(self._seeds):
            if seed is not None or not self._seeded:
                self.mdp.seed(row, seeding.np_random(seed)[0])
        self._seeded = True
        chosen = [options.get("prompt_index") for options in self._options]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self.mdp.reset([row for row, index in enumerate(chosen) if index is None])
        self.mdp.reset([row for row, index in enumerate(chosen) if index is not None], [index for index in chosen if index is not None])
        return self.mdp.observe()

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = np.asarray(actions).reshape(self.num_envs)

    def step_wait(self) -> VecEnvStepReturn:
        """Append one token to every row; return fresh observations, rewards float32, dones and infos."""
        if self._actions is None:
            raise InvalidArgumentError("step_wait before step_async")
        transition = self.mdp.step(self._actions)
        self._actions = None
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(transition.terminated)
        if ended.size:
            final = self.mdp.observe()
            for row in ended:
                infos[row] = {
                    **transition.infos[int(row)],
                    "terminal_observation": {key: values[row] for key, values in final.items()},
                    "TimeLimit.truncated": False,
                }
            self.mdp.reset(ended)
        return self.mdp.observe(), transition.rewards.astype(np.float32), transition.terminated, infos

    def action_masks(self) -> np.ndarray[Any, Any]:
        """Return which tokens may be chosen now in each row, (n, V) bool."""
        return np.broadcast_to(self.mdp.allowed_mask, (self.num_envs, self.mdp.vocabulary.size))

    def close(self) -> None:
        """Do nothing: there are no processes."""

    def get_images(self) -> Sequence[np.ndarray[Any, Any] | None]:
        """Return no images."""
        return [None] * self.num_envs

    def render(self, mode: str | None = None) -> Any:  # noqa: ARG002  # stable-baselines3's signature
        """Return the text so far of each row, joined by lines."""
        return "\n".join(ansi_text(*self.mdp.row_text(row)) for row in range(self.num_envs)) if self.render_mode == "ansi" else None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute once per row."""
        if attr_name != "action_masks" and not hasattr(self, attr_name):
            raise AttributeError(f"the environment has no attribute {attr_name!r}")
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:  # noqa: ARG002
        """Set an attribute of the whole batch."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Call a method; `action_masks` gives one mask per row, anything else is called on the batch and returned per row."""
        rows = list(self._get_indices(indices))
        if method_name == "action_masks":
            masks = self.action_masks()
            return [masks[row] for row in rows]
        result = getattr(self, method_name)(*method_args, **method_kwargs)
        return [result for _ in rows]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:  # noqa: ARG002
        """Return False per row: there are no single environments."""
        return [False for _ in self._get_indices(indices)]


def make_vec_env(task: str | Task, n_envs: int = 1, seed: int | None = None, monitor: bool = True, **options: Any) -> VecEnv:
    """Make the stable-baselines3 environment of a task.

    Args:
        task: A `Task`, or a task's short or full name ("textgym/ReviewContinuation-v0").
        n_envs: Number of rows, stepped as one batch.
        seed: Row i is seeded with `seed + i`.
        monitor: Wrap in `VecMonitor`, which records episode returns and lengths for the logs.
        **options: As for `TextEnv`: `reward`, `max_new_tokens`, `split`, `model`, ...
    """
    env: VecEnv = TextVecEnv(task, n_envs, **options)
    env.seed(seed)
    return VecMonitor(env) if monitor else env
