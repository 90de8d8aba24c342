"""Expert iteration: write several texts per prompt, imitate the best one (rejection-sampling fine-tuning)."""

from math import inf
from typing import Any, ClassVar

import numpy as np

from textgym.agent import Bounds
from textgym.learning.negative_log_likelihood import negative_log_likelihood
from textgym.learning.replay import TokenReplay
from textgym.learning.text_agent import TextAgent
from textgym.learning.text_groups import Floats, differing_groups, place_of_best, total_rewards
from textgym.policies.generation import GeneratedText
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task


class ExpertIterationAgent(TextAgent):
    """Expert iteration (Anthony et al. 2017, arXiv:1705.08439), for texts rejection-sampling fine-tuning (RAFT, arXiv:2304.06767).

    Of `group_size` texts per prompt the one with the highest reward, less `kl_coef` · log(π/π_ref), becomes the expert's; the loss is
    −log π(a_t | s_t), a mean over the experts' tokens. A group that the task rewards equally teaches nothing and is left out. With a replay
    the experts join those of earlier iterations, as in the paper's online version: where few groups differ, a step on those few alone, of
    the size that Adam gives every step, would be mostly noise.

    Args:
        task: As for `textgym.make_agent`.
        group_size: Texts per prompt; `n_envs` must be a multiple of it.
        updates: Optimizer steps per iteration: on its experts, or each on one text per group, drawn from the replay.
        replay_size: Tokens of experts kept, prompts included, the oldest making room; 0 for those of the iteration alone.
        **settings: Those of `textgym.learning.text_agent.TextAgent` (`learning_rate`, `kl_coef`, ...) and `textgym.agent.Agent`.
    """

    search_space: ClassVar[SearchSpace] = {"updates": Range(1, 4), "group_size": Choice((4, 8))}

    bounds: ClassVar[Bounds] = {"updates": (1, inf), "replay_size": (0, inf)}

    def __init__(self, task: str | Task, group_size: int = 4, updates: int = 2, replay_size: int = 0, **settings: Any) -> None:
        super().__init__(task, **settings)
        self.group_size, self.updates = self.check_group_size(group_size), updates
        self.replay = TokenReplay(replay_size, longest=self.env.mdp.max_length) if replay_size else None

    def iterate(self) -> int:
        """Write groups of texts, keep each group's best, imitate them."""
        texts = self.write_groups(self.group_size)
        rewards, kl = self.penalised_rewards(texts)
        self.log_texts(texts, kl)
        experts = self.experts(texts, np.array([r.sum() for r in rewards]))
        if self.replay is not None:
            self.replay.add(experts)
        figures: dict[str, float] = {}
        for _ in range(self.updates):
            if self.replay:
                experts = self.replay.sample(len(texts) // self.group_size, self.rng)
            if experts:
                figures = self.optimisation.step(negative_log_likelihood(self.policy, experts, self.batch_size), self.progress)
                self.n_tokens_trained += sum(len(t.action_ids) for t in experts)
        self.log_update(figures)
        return sum(len(t.action_ids) for t in texts)

    def experts(self, texts: list[GeneratedText], scores: Floats) -> list[GeneratedText]:
        """Return the text with the best score of each group; none of a group whose rewards are all equal or unknown: it teaches nothing.

        Args:
            texts: Whose groups lie one after the other.
            scores: (n,) their rewards less the KL penalty.
        """
        return [texts[group][place_of_best(scores[group])] for group in differing_groups(total_rewards(texts), self.group_size)]
