"""The bundled agents by name; each file is imported when its agent is first asked for."""

from typing import Any

import textgym

AGENTS = {
    "a2c": "a2c:A2CAgent",
    "base": "base:BaseAgent",
    "grpo": "grpo:GRPOAgent",
    "dqn": "dqn:DQNAgent",
    "llm": "llm:LLMAgent",
    "nlpo": "nlpo:NLPOAgent",
    "ppo": "ppo:PPOAgent",
    "reinforce": "reinforce:ReinforceAgent",
    "rloo": "rloo:RLOOAgent",
    "trpo": "trpo:TRPOAgent",
    "soft-q": "soft_q:SoftQAgent",
}


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agents."""
    for name, place in AGENTS.items():
        register(name, f"textgym_agents.{place}")
