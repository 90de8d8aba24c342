"""TextEnv: the single Gymnasium environment of text generation."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym.envs.build import action_space, build_mdp, observation_space
from textgym.envs.render import ansi_text
from textgym.errors import InvalidArgumentError
from textgym.mdp import Observation
from textgym.tasks import Task


class TextEnv(gym.Env[Observation, np.int64]):
    """Text generation, one token per step.

    ## Description
    The agent continues a prompt. The state is the prefix - prompt and continuation so far - and the transition appends the chosen token.

    ## Action Space
    `Discrete(vocabulary size)`: the id of the next token. `action_masks()` says which ids may be chosen (the convention of sb3-contrib);
    samples of the space always may.

    ## Observation Space
    `Dict` of `input_ids` and `attention_mask`, int64 (L,) each, right-padded, L = longest prompt + `max_new_tokens`: the keyword
    arguments of a Hugging Face forward pass.

    ## Starting State
    A prompt of the split in use, drawn uniformly; `reset(options={"prompt_index": i})` picks one.

    ## Reward
    0 until the end; then the reward model's score of the finished episode. Dense reward models pay at every step.

    ## Episode End
    Terminated by the end-of-text token or a stop string (`finish_reason` "stop") or when the token budget is used up ("length"). The
    budget is part of the task, so the environment never truncates.

    ## Information
    After the last step: `prompt`, `continuation`, `finish_reason`, and `reward_terms`, the unweighted score of each reward term by name.

    ## Arguments
    `reward` (name, callable, object with `score`, or mapping name → weight), `max_new_tokens`, `split` ("train", "validation", "test"),
    `model` (the language model whose tokens are the actions), `render_mode` ("ansi": the text as a string; "human": printed), and the
    options of the task.

    ## References
    Ramamurthy et al., "Is Reinforcement Learning (Not) for Natural Language Processing?", ICLR 2023, arXiv:2210.01241.

    ## Version History
    v0: initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as Gymnasium declares it
        "render_modes": ["ansi", "human"],
        "render_fps": 4,
    }

    def __init__(self, task: str | Task, render_mode: str | None = None, **options: Any) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InvalidArgumentError(f"render_mode must be None, 'ansi' or 'human', got {render_mode!r}")
        self.mdp = build_mdp(task, 1, **options)
        self.render_mode = render_mode
        self.observation_space = observation_space(self.mdp)  # type: ignore[assignment]  # Dict of arrays
        self.action_space = action_space(self.mdp)  # Discrete is a Space[int64]
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; `options={"prompt_index": i}` picks the prompt. Returns the prefix and an empty info."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self.mdp.seed(0, self.np_random)
            self._seeded = True
        chosen = (options or {}).get("prompt_index")
        self.mdp.reset([0], None if chosen is None else [chosen])
        self._show()
        return self._observation(), {}

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Append a token; see the class for what is returned."""
        transition = self.mdp.step(np.asarray([action]))
        self._show()
        return self._observation(), float(transition.rewards[0]), bool(transition.terminated[0]), False, dict(transition.infos.get(0, {}))

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which tokens may be chosen now, (V,) bool."""
        return self.mdp.allowed_mask

    def render(self) -> str | None:  # "ansi" returns a string, as Gymnasium's own text environments do
        """Return the text so far ("ansi"), or print it ("human")."""
        if self.render_mode == "ansi":
            return ansi_text(*self.mdp.row_text(0))
        if self.render_mode is None:
            gym.logger.warn('render() without a render mode: pass render_mode="ansi" or "human" to gym.make')
        return None

    def _show(self) -> None:
        if self.render_mode == "human":
            print(ansi_text(*self.mdp.row_text(0)))  # noqa: T201  # showing it is what render_mode="human" asks for

    def _observation(self) -> Observation:
        return {key: rows[0] for key, rows in self.mdp.observe().items()}
