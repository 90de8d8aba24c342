"""The agent "llm": a served language model as it is, the opponent that a trained policy is compared with."""

from collections.abc import Mapping
from typing import Any

import textgym
from textgym.lm.endpoint import names_api_key
from textgym.tasks import Task
from textgym.text_source import INSTRUCTION, Interface, LLMTextSource


def llm(
    task: str | Task,
    base_url: str = "",
    served_model: str = "",
    api_key: str | None = None,
    interface: Interface = "chat",
    instruction: str = INSTRUCTION,
    workers: int = 8,
    timeout: float = 60.0,
    retries: int = 3,
    extra_body: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """A language model behind an OpenAI-compatible endpoint; learning does nothing.

    Its texts are read in the tokens of `model`, the task's own local model, and cut at the same budget as everyone's; what that vocabulary
    cannot say is left out. Their log-probabilities are unknown, so its KL is nan.

    Args:
        task: As for `textgym.make_agent`.
        base_url, served_model, extra_body: The endpoint's address, its name of the model, and further fields of every request.
        api_key: None for the environment variable OPENAI_API_KEY, "$NAME" for the variable NAME, "none" for none. Settings are stored, so the
            key itself is refused.
        interface, instruction, workers, timeout, retries: See `textgym.text_source.LLMTextSource`.
        **settings: Those of `textgym.agent.Agent`; `temperature` is that of the served model.
    """
    from textgym_agents.llm_agent import LLMAgent

    if not names_api_key(api_key):
        raise textgym.InvalidArgumentError(
            'llm: api_key is stored with the agent: put the key into an environment variable and pass "$ITS_NAME", or "none" for no key'
        )
    source = LLMTextSource(
        base_url,
        served_model,
        api_key,
        interface,
        instruction,
        settings.get("temperature", 1.0),
        workers,
        timeout,
        retries,
        extra_body=extra_body,
    )
    return LLMAgent(task, settings, source)


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agent."""
    register("llm", llm)
