"""The bundled agents by name; each file is imported when its agent is first asked for."""

from typing import Any

import textgym

AGENTS = {
    "a2c": "a2c:A2CAgent",
    "base": "base:BaseAgent",
    "llm": "llm:LLMAgent",
    "ppo": "ppo:PPOAgent",
    "reinforce": "reinforce:ReinforceAgent",
    "supervised": "supervised:SupervisedAgent",
}


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agents."""
    for name, place in AGENTS.items():
        register(name, f"textgym_agents.{place}")
