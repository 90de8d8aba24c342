"""The untrained language model, the control of every comparison."""

from textgym.learning.control_agent import ControlAgent


class BaseAgent(ControlAgent):
    """The untrained language model; learning does nothing.

    Args:
        task: As for `textgym.make_agent`.
        **settings: Those of `textgym.agent.Agent`.
    """
