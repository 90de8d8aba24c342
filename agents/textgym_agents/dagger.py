"""DAgger: the policy writes, the task's expert says what it should have written at every prefix, and all of it is imitated."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.learning.expert import ExpertTokens
from textgym.learning.negative_log_likelihood import negative_log_likelihood
from textgym.learning.replay import TokenReplay
from textgym.learning.text_agent import TextAgent
from textgym.policies.generation import Choice, GeneratedText, write_rows
from textgym.search_space import Range, SearchSpace
from textgym.tasks import Task


class DAggerAgent(TextAgent):
    """Data-set aggregation (Ross et al. 2011, arXiv:1011.0686) for tasks with an expert: the right label, an optimal policy, ...

    Iteration i writes a text per environment, each token the expert's with probability mix ** i (their β_i) and else the policy's. The expert
    labels every prefix that came up, the texts join those of earlier iterations, and the loss is −log π(expert's token | prefix), a mean over
    the prefixes of texts drawn from all of them. So the policy learns what to do after its own mistakes, which no reference shows. The reward
    is only logged.

    Args:
        task: As for `textgym.make_agent`; it must have an expert (`Task.expert`, or labels).
        mix: Base of the expert's share: 1 in the first iteration, mix in the second, ...; 0 leaves the later ones to the policy.
        replay_size: Tokens kept, prompts included; the oldest texts make room for new ones.
        updates: Optimizer steps per iteration, each on as many texts as an iteration writes.
        **settings: Those of `textgym.learning.text_agent.TextAgent` (`learning_rate`, ...) and `textgym.agent.Agent`.
    """

    refuses: ClassVar[Mapping[str, str]] = {"kl_coef": "it learns from the expert, not from rewards"}
    replay: TokenReplay
    search_space: ClassVar[SearchSpace] = {"mix": Range(0.0, 0.9), "updates": Range(1, 4)}

    def __init__(self, task: str | Task, mix: float = 0.5, replay_size: int = 100_000, updates: int = 2, **settings: Any) -> None:
        if not 0 <= mix <= 1:
            raise InvalidArgumentError(f"mix must be from 0 to 1, got {mix}")
        if updates < 1:
            raise InvalidArgumentError(f"updates must be at least 1, got {updates}")
        super().__init__(task, **settings)
        self.mix, self.updates = mix, updates
        self.expert = ExpertTokens(self.env.mdp)
        self.replay = TokenReplay(replay_size, longest=self.env.mdp.max_length)  # its number per token is the expert's label
        self.n_iterations = 0

    def iterate(self) -> int:
        """Write, have it labelled, imitate."""
        share = self.mix**self.n_iterations
        texts, labels = self.write_mixed(share)
        agreement = float(np.mean(np.concatenate([t.action_ids for t in texts]) == np.concatenate(labels)))
        own = [t for t in texts if np.isfinite(t.log_probs).all()]  # without a token of the expert's, whose probability nobody asked for
        kl = self.penalised_rewards(own)[1] if own else float("nan")
        self.log_texts(texts, kl, expert_share=share, agreement=agreement)
        self.replay.add(texts, [wanted.astype(np.float64) for wanted in labels])
        figures: dict[str, float] = {}
        for _ in range(self.updates):
            drawn = self.replay.sample(len(texts), self.rng)
            wanted = [t.rewards.astype(np.int64) for t in drawn]
            figures = self.optimisation.step(negative_log_likelihood(self.policy, drawn, self.batch_size, wanted), self.progress)
            self.n_tokens_trained += sum(map(len, wanted))
        self.log_update(figures)
        self.n_iterations += 1
        return sum(len(t.action_ids) for t in texts)

    def write_mixed(self, share: float) -> tuple[list[GeneratedText], list[NDArray[np.int64]]]:
        """Write a text per environment, a share of the tokens the expert's; return the texts, and the expert's token at every prefix."""
        mdp, policy = self.env.mdp, self.policy
        prompts = self.rng.integers(mdp.n_prompts, size=mdp.n_rows).tolist()
        uniform = self.rng.random((mdp.max_new_tokens, mdp.n_rows), dtype=np.float32)
        is_experts = self.rng.random((mdp.max_new_tokens, mdp.n_rows)) < share
        chosen: list[tuple[int, ...]] = [()] * mdp.n_rows

        def choose(step: int) -> Choice:
            tokens, log_probs = policy.sample(mdp.observe(), uniform[step])
            if (rows := np.flatnonzero(is_experts[step])).size:
                tokens[rows] = self.expert.tokens([(prompts[row], chosen[row]) for row in rows.tolist()])
                log_probs[rows] = np.nan
            for row, token in enumerate(tokens.tolist()):
                chosen[row] = (*chosen[row], token)
            return tokens, log_probs

        texts = write_rows(mdp, prompts, choose)
        policy.clear_cache()
        labels = self.expert.labels(prompts, [t.action_ids for t in texts])
        self.expert.forget()
        return texts, labels

    # --- exact resume --------------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the state with the number of iterations."""
        return {**super().state(), "n_iterations": self.n_iterations}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.n_iterations = int(state["n_iterations"])
