"""TextVectorEnv: Gymnasium's vector face, one batch instead of n processes."""

from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym.envs.build import action_space, build_mdp, observation_space
from textgym.envs.render import ansi_text
from textgym.errors import InvalidArgumentError
from textgym.mdp import Observation
from textgym.tasks import Task


class TextVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """n rows of `TextEnv`, stepped as one batch; made by `gym.make_vec(id, num_envs=n)`.

    Row i seeded with `seed + i` goes through the same states as a `TextEnv` seeded so.

    Args:
        task: As for `TextEnv`.
        num_envs: Number of rows.
        autoreset_mode: Gymnasium's `AutoresetMode`: NEXT_STEP (default), SAME_STEP (`final_obs`, `final_info` in the infos) or DISABLED
            (reset rows yourself with `reset(options={"reset_mask": mask})`).
        render_mode: None or "ansi" (`render()` returns a tuple of n strings).
        **options: As for `TextEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "autoreset_mode": AutoresetMode.NEXT_STEP}  # type: ignore[misc]

    def __init__(
        self,
        task: str | Task,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise InvalidArgumentError(f"render_mode of a vector environment must be None or 'ansi', got {render_mode!r}")
        self.mdp = build_mdp(task, num_envs, **options)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]  # Gymnasium itself says per instance
        self.single_observation_space = observation_space(self.mdp)
        self.single_action_space = action_space(self.mdp)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._over = np.zeros(num_envs, np.bool_)
        self._seeded = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every row.

        Args:
            seed: Of row 0, row i gets `seed + i`; or one per row.
            options: `"reset_mask"`, (n,) bool: the rows to begin anew; `"prompt_index"`, an int or (n,) ints: the rows' prompts.
        """
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)] if not isinstance(seed, list) else seed
        if len(seeds) != self.num_envs:
            raise InvalidArgumentError(f"expected {self.num_envs} seeds, got {len(seeds)}")
        for row, row_seed in enumerate(seeds):
            if row_seed is not None or not self._seeded:
                self.mdp.seed(row, seeding.np_random(row_seed)[0])
        self._seeded = True
        mask = (options or {}).get("reset_mask")
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        self.mdp.reset(rows, self._chosen_prompts(rows, (options or {}).get("prompt_index")))
        self._over[rows] = False
        return self.mdp.observe(), {}

    def _chosen_prompts(self, rows: NDArray[np.int64], prompt_index: Any) -> list[Any] | None:
        if prompt_index is None:
            return None
        indices = [prompt_index] * self.num_envs if np.ndim(prompt_index) == 0 else list(prompt_index)
        if len(indices) != self.num_envs:
            raise InvalidArgumentError(f"expected one prompt_index or {self.num_envs}, got {len(indices)}")
        return [indices[row] for row in rows.tolist()]

    def step(self, actions: NDArray[np.int64]) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Append one token to every row; rows that ended are reset as the autoreset mode says."""
        truncated = np.zeros(self.num_envs, np.bool_)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._over.any():
            transition = self.mdp.step(actions, np.flatnonzero(~self._over))
            self.mdp.reset(np.flatnonzero(self._over))
        else:
            transition = self.mdp.step(actions)
        self._over = transition.terminated.copy()
        infos: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._over.any():
            ended = self.mdp.observe()
            final_obs = np.empty(self.num_envs, object)
            for row in np.flatnonzero(self._over).tolist():
                final_obs[row] = {key: values[row] for key, values in ended.items()}
            final_info: dict[str, Any] = {}
            for row, info in transition.infos.items():
                final_info = self._add_info(final_info, info, row)
            infos = {"final_obs": final_obs, "_final_obs": self._over.copy(), "final_info": final_info, "_final_info": self._over.copy()}
            self.mdp.reset(np.flatnonzero(self._over))
        else:
            for row, info in transition.infos.items():
                infos = self._add_info(infos, info, row)
        return self.mdp.observe(), transition.rewards, transition.terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which tokens may be chosen now in each row, (n, V) bool."""
        return np.broadcast_to(self.mdp.allowed_mask, (self.num_envs, self.mdp.vocabulary.size))

    def render(self) -> tuple[str, ...] | None:
        """Return the text so far of each row."""
        return tuple(ansi_text(*self.mdp.row_text(row)) for row in range(self.num_envs)) if self.render_mode == "ansi" else None
