"""Behaviour cloning: supervised fine-tuning on what people wrote."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from textgym.learning.given_data_agent import GivenDataAgent
from textgym.learning.given_texts import REFERENCES, Rounds, best_share, given_texts
from textgym.learning.negative_log_likelihood import negative_log_likelihood
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class BehaviourCloningAgent(GivenDataAgent):
    """Behaviour cloning (Pomerleau 1991; for texts, supervised fine-tuning): given texts, the task's references, become more probable.

    The loss is −log π(a_t | s_t), a mean over the tokens of `n_envs` texts, which are dealt out in shuffled rounds. Nothing is generated;
    the token budget counts the tokens read. With `share` below 1 only the texts with the highest reward are imitated (filtered behaviour
    cloning).

    Args:
        task: As for `textgym.make_agent`.
        share: Share of the texts that are imitated, by reward; ties with the last one are kept.
        data: As for `textgym.learning.given_texts.given_texts`: "references", "offline", what the task ships, a registered set, a file.
        **settings: Those of `textgym.learning.text_agent.TextAgent` (`learning_rate`, ...) and `textgym.agent.Agent`.
    """

    refuses: ClassVar[Mapping[str, str]] = {"kl_coef": "it learns from given texts, not from rewards"}
    search_space: ClassVar[SearchSpace] = {"share": Range(0.05, 1.0, log=True)}

    def __init__(self, task: str | Task, share: float = 0.25, data: str | os.PathLike[str] = REFERENCES, **settings: Any) -> None:
        super().__init__(task, **settings)
        self.texts = best_share(given_texts(self.env.mdp, data), share)
        self.rounds = Rounds(len(self.texts))

    def iterate(self) -> int:
        """Take one step on the next texts."""
        texts = [self.texts[i] for i in self.rounds.deal(self.env.num_envs, self.rng)]
        self.log_update(self.optimisation.step(negative_log_likelihood(self.policy, texts, self.batch_size), self.progress))
        read = sum(len(t.action_ids) for t in texts)
        self.n_tokens_trained += read
        return read
