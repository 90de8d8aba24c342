"""What a user of stable-baselines3 needs: the policy, the rollout buffer, the environment."""

from textgym.envs.sb3_vec_env import TextVecEnv, make_vec_env
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.rollout_buffer import EpisodeRolloutBuffer

__all__ = ["CausalLMPolicy", "EpisodeRolloutBuffer", "TextVecEnv", "make_vec_env"]
