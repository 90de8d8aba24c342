"""Registration of every task as a Gymnasium environment, single and vector."""

import gymnasium as gym

from textgym.plugin_manager import installed_plugins
from textgym.tasks import environment_id


def register_environments() -> None:
    """Give every registered task its Gymnasium id; ids that exist are left alone.

    A family has one id (Gymnasium reads a colon as "module:id"), and `gym.make` takes the task as `member=`.
    """
    for name in (*installed_plugins().registrations("task"), *installed_plugins().families("task")):
        if environment_id(name) not in gym.registry:
            gym.register(
                environment_id(name),
                entry_point="textgym.envs.env:TextEnv",
                vector_entry_point="textgym.envs.vector_env:TextVectorEnv",
                kwargs={"task": name},
                # obs and action spaces are checked by the test-suite over every environment; a check per step costs more than the step
                disable_env_checker=True,
            )
