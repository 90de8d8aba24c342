"""The agent "base": the language model as it is, the control of every comparison."""

from typing import Any

import textgym
from textgym.tasks import Task


def base(task: str | Task, **settings: Any) -> Any:
    """The untrained language model; learning does nothing.

    Args:
        task: As for `textgym.make_agent`.
        **settings: Those of `textgym.agent.Agent`.
    """
    from textgym.agent import Agent

    class Base(Agent):
        learns = False

        def learn(self, total_tokens: int) -> Agent:
            """Count the tokens and learn nothing from them."""
            self.n_tokens += total_tokens
            return self

    agent = Base(task, **settings)
    agent.policy = agent.make_policy()
    return agent


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agent."""
    register("base", base)
