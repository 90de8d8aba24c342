"""The untrained language model, the control of every comparison."""

from typing import Any

from textgym.agent import Agent
from textgym.tasks import Task


class BaseAgent(Agent):
    """The untrained language model; learning does nothing.

    Args:
        task: As for `textgym.make_agent`.
        **settings: Those of `textgym.agent.Agent`.
    """

    learns = False

    def __init__(self, task: str | Task, **settings: Any) -> None:
        super().__init__(task, **settings)
        self.policy = self.make_policy()

    def learn(self, total_tokens: int) -> "BaseAgent":
        """Count the tokens and learn nothing from them."""
        self.n_tokens += total_tokens
        return self
