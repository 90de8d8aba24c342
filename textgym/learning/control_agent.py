"""ControlAgent: an agent that learns nothing, what the others are measured against."""

from typing import Any

from textgym.agent import Agent
from textgym.tasks import Task


class ControlAgent(Agent):
    """Writes as it always did; subclasses say how by `write`. Its `policy` is the untrained language model.

    Args:
        task: As for `Agent`.
        **settings: Those of `Agent`.
    """

    learns = False

    def __init__(self, task: str | Task, **settings: Any) -> None:
        super().__init__(task, **settings)
        self.policy = self.make_policy()

    def learn(self, total_tokens: int) -> "ControlAgent":
        """Count the tokens and learn nothing from them."""
        self.n_tokens += total_tokens
        return self
