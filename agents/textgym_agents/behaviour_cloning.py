"""Behaviour cloning: supervised fine-tuning on what people wrote."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.learning.given_texts import REFERENCES, Rounds, best_share, given_texts
from textgym.learning.micro_batches import micro_batches
from textgym.learning.text_agent import TextAgent
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.generation import GeneratedText
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


def negative_log_likelihood(
    policy: CausalLMPolicy, texts: Sequence[GeneratedText], batch_size: int, wanted: Sequence[NDArray[np.int64]] | None = None
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Yield the parts of −log π of every token, a mean over tokens: the loss of every agent that imitates.

    Args:
        policy: What learns.
        texts: Whose prefixes.
        batch_size: Tokens per pass.
        wanted: Per text (tokens of it,), which token is imitated after each prefix; by default that of the text.
    """
    n_tokens = sum(len(t.action_ids) for t in texts)
    for batch in micro_batches(texts, batch_size, policy.device):
        tokens = batch.packed.actions
        if wanted is not None:
            tokens = torch.from_numpy(np.concatenate([wanted[i] for i in batch.indices])).to(policy.device)
        _, log_prob, entropy = policy.evaluate_actions(batch.packed, tokens)
        loss = -log_prob.sum() / n_tokens
        yield loss, {"loss": loss.item(), "entropy_loss": -entropy.sum().item() / n_tokens}


class BehaviourCloningAgent(TextAgent):
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
        self._rounds = Rounds(len(self.texts))

    def iterate(self) -> int:
        """Take one step on the next texts."""
        texts = [self.texts[i] for i in self._rounds.deal(self.env.num_envs, self.rng)]
        self.log_update(self.optimisation.step(negative_log_likelihood(self.policy, texts, self.batch_size), self.progress))
        read = sum(len(t.action_ids) for t in texts)
        self.n_tokens_trained += read
        return read

    def state(self) -> dict[str, Any]:
        """Return the state with the texts still to come in this round."""
        return {**super().state(), "order": self._rounds.order}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self._rounds.order = list(state["order"])
