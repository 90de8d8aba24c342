"""The bundled agents by name; each file is imported when its agent is first asked for."""

from pathlib import Path
from typing import Any

import textgym
from textgym.tuned_settings import tuned_settings_files

AGENTS = {
    "a2c": "a2c:A2CAgent",
    "base": "base:BaseAgent",
    "expert-iteration": "expert_iteration:ExpertIterationAgent",
    "gail": "gail:GAILAgent",
    "grpo": "grpo:GRPOAgent",
    "bc": "behaviour_cloning:BehaviourCloningAgent",
    "best-of-n": "best_of_n:BestOfNAgent",
    "dagger": "dagger:DAggerAgent",
    "dpo": "dpo:DPOAgent",
    "dqn": "dqn:DQNAgent",
    "ilql": "ilql:ILQLAgent",
    "llm": "llm:LLMAgent",
    "nlpo": "nlpo:NLPOAgent",
    "oracle": "oracle:OracleAgent",
    "ppo": "ppo:PPOAgent",
    "random": "random_agent:RandomAgent",
    "reinforce": "reinforce:ReinforceAgent",
    "rloo": "rloo:RLOOAgent",
    "trpo": "trpo:TRPOAgent",
    "sac": "sac:SACAgent",
    "soft-q": "soft_q:SoftQAgent",
    "supervised": "supervised:SupervisedAgent",
}


@textgym.hookimpl
def register_agents(register: Any) -> None:
    """Register the agents."""
    for name, place in AGENTS.items():
        register(name, f"textgym_agents.{place}")


@textgym.hookimpl
def register_tuned_settings(register: Any) -> None:
    """Register the settings that were tuned for them."""
    for name, file in tuned_settings_files(Path(__file__).parent / "tuned").items():
        register(name, file)
