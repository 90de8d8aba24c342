"""DPO: direct preference optimisation on pairs of texts that the reward ranks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from textgym.agent import Bounds
from textgym.errors import InvalidArgumentError
from textgym.learning.given_data_agent import GivenDataAgent
from textgym.learning.given_texts import Pair, Rounds, given_pairs
from textgym.learning.micro_batches import micro_batches, split_by_text
from textgym.learning.replay import TokenReplay
from textgym.learning.text_groups import Floats, differing_groups, place_of_best, total_rewards
from textgym.policies.generation import GeneratedText, generate
from textgym.policies.reference import ReferenceModel
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task

Writer = Literal["policy", "start"]


class DPOAgent(GivenDataAgent):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290).

    Of `group_size` texts per prompt the best and the worst by the reward are a pair (chosen c, rejected r); the loss is
    −log σ(β [log π(c)/π_ref(c) − log π(r)/π_ref(r)]), a mean over pairs, where the log-probabilities are those of whole texts. Its optimum is
    that of the Bradley-Terry reward less β times the KL with π_ref, so there is no `kl_coef`. With `data` the pairs are given ones, dealt
    out in shuffled rounds of `n_envs` texts (offline DPO); nothing is generated then, and the budget counts the tokens read.

    Args:
        task: As for `textgym.make_agent`.
        beta: β.
        writer: Who writes the pairs: "policy", as it is now (online DPO, Guo et al. 2024, arXiv:2402.04792), or "start", the frozen model that
            it started from (offline DPO on ever fresh pairs).
        group_size: Texts per prompt; `n_envs` must be a multiple of it.
        updates: Optimizer steps per iteration: on its pairs, or each on as many as there are groups, drawn from the replay.
        replay_size: Tokens of written pairs kept, prompts included, the oldest making room; 0 for those of the iteration alone. Where few
            groups differ, a step on those few, of the size that Adam gives every step, would be mostly noise.
        data: As for `textgym.learning.given_texts.given_pairs`: "offline", what the task ships, a registered set, a file of pairs or ratings;
            "" writes the pairs, and only then do `writer` and `group_size` matter.
        **settings: Those of `textgym.learning.text_agent.TextAgent` (`learning_rate`, ...) and `textgym.agent.Agent`.
    """

    refuses: ClassVar[Mapping[str, str]] = {"kl_coef": "beta is the coefficient of the KL"}
    bounds: ClassVar[Bounds] = {"updates": (1, inf), "replay_size": (0, inf)}
    search_space: ClassVar[SearchSpace] = {
        "beta": Range(0.03, 0.5, log=True),
        "updates": Range(1, 4),
        "group_size": Choice((4, 8)),
    }

    def __init__(
        self,
        task: str | Task,
        beta: float = 0.1,
        writer: Writer = "policy",
        group_size: int = 4,
        updates: int = 2,
        replay_size: int = 0,
        data: str | os.PathLike[str] = "",
        **settings: Any,
    ) -> None:
        if not beta > 0:
            raise InvalidArgumentError(f"beta must be greater than 0, got {beta}")
        if writer not in ("policy", "start"):
            raise InvalidArgumentError(f"writer must be 'policy' or 'start', got {writer!r}")
        super().__init__(task, **settings)
        self.beta, self.writer, self.updates = beta, writer, updates
        given = bool(os.fspath(data))
        if given and replay_size:
            raise InvalidArgumentError(
                f"replay_size keeps pairs that were written, and with data={os.fspath(data)!r} none are: leave it out"
            )
        if given and self.env.num_envs < 2:
            raise InvalidArgumentError(f"n_envs must be at least 2 texts, a pair, got {self.env.num_envs}")
        self.group_size = group_size if given else self.check_group_size(group_size)
        # its number per token is log π_ref
        self.replay = TokenReplay(replay_size, group_size=2, longest=self.env.mdp.max_length) if replay_size else None
        self.start = self.make_policy().requires_grad_(False)  # π_ref also where the model has no weights to be named by
        self.start.load_state_dict(self.policy.state_dict())
        self.training_modules["start"] = self.start
        self.given: list[Pair] = given_pairs(self.env.mdp, data) if given else []
        self.rounds = Rounds(len(self.given))

    @cached_property
    def reference(self) -> ReferenceModel | None:
        """The reference model of the log and the evaluation: `start`, where that is the one and not what a resumed run has become."""
        if self.reference_model == self.model and self.start.lm.dtype == torch.float32 and not self.start.lm.adapter_base:
            return ReferenceModel(self.model, self.device, held=self.start.lm)
        return super().reference

    def iterate(self) -> int:
        """Take steps on the next given pairs, or on pairs written now."""
        if not self.given:
            return self._write_and_learn()
        pairs = [self.given[i] for i in self.rounds.deal(self.env.num_envs // 2, self.rng)]
        return self._learn(pairs, self.start_log_probs([text for pair in pairs for text in pair]))

    def _write_and_learn(self) -> int:
        """Write groups of texts, pair best with worst, take steps."""
        mdp = self.env.mdp
        if self.writer == "policy":
            texts = self.write_groups(self.group_size)
        else:
            prompts = self.rng.integers(mdp.n_prompts, size=mdp.n_rows // self.group_size)
            texts = generate(self.start, mdp, np.repeat(prompts, self.group_size).tolist(), self.rng)
        places = self.pairs(texts)
        paired = [i for pair in places for i in pair]
        if self.reference_model == self.model:  # the KL of the log needs π_ref of every text
            everyones = self.start_log_probs(texts)
            reference = [everyones[i] for i in paired]
            _, kl = self.penalised_rewards(texts, everyones)
        else:
            reference = self.start_log_probs([texts[i] for i in paired])
            _, kl = self.penalised_rewards(texts)
        self.log_texts(texts, kl, pairs=float(len(places)))
        if self.replay is not None:
            self.replay.add([texts[i] for i in paired], reference)
        self._learn([(texts[better], texts[worse]) for better, worse in places], reference)
        return sum(len(t.action_ids) for t in texts)

    def _learn(self, pairs: Sequence[Pair], reference: Sequence[Floats]) -> int:
        """Take steps on pairs, or on replayed ones; return the tokens of one pass."""
        figures: dict[str, float] = {}
        read = 0
        for _ in range(self.updates):
            if self.replay:
                texts = self.replay.sample(self.env.num_envs // self.group_size, self.rng)
                pairs, reference = list(zip(texts[::2], texts[1::2], strict=True)), [t.rewards for t in texts]
            if pairs:
                figures = self.optimisation.step(self.losses(pairs, reference), self.progress)
                read = sum(len(t.action_ids) for pair in pairs for t in pair)
                self.n_tokens_trained += read
        self.log_update(figures)
        return read

    def pairs(self, texts: Sequence[GeneratedText]) -> list[tuple[int, int]]:
        """Return the places of the best and the worst text of each group whose rewards differ."""
        totals = total_rewards(texts)
        groups = differing_groups(totals, self.group_size)
        return [(g.start + place_of_best(totals[g]), g.start + place_of_best(-totals[g])) for g in groups]

    def losses(self, pairs: Sequence[Pair], reference: Sequence[Floats]) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the parts of the loss; both texts of a pair are in the same pass.

        Args:
            pairs: Better and worse texts.
            reference: log π_ref of every token, per text (tokens of it,), a pair's better text before its worse one.
        """
        texts = [text for pair in pairs for text in pair]
        per_pass = 2 * max(1, self.batch_size // (2 * self.env.mdp.max_new_tokens))
        for first in range(0, len(texts), per_pass):
            part = list(range(first, min(first + per_pass, len(texts))))
            (batch,) = micro_batches(texts, len(part) * self.env.mdp.max_new_tokens + 1, self.device, {"reference": reference}, part)
            _, log_prob, entropy = self.policy.evaluate_actions(batch.packed, batch.packed.actions)
            gains = batch.sum_by_text(log_prob - batch.columns["reference"]).reshape(-1, 2)  # (pairs, chosen and rejected)
            margins = self.beta * (gains[:, 0] - gains[:, 1])
            loss = -logsigmoid(margins).sum() / len(pairs)
            yield (
                loss,
                {
                    "loss": loss.item(),
                    "accuracy": (margins > 0).sum().item() / len(pairs),
                    "margin": margins.sum().item() / len(pairs),
                    "entropy_loss": -entropy.sum().item() / sum(len(t.action_ids) for t in texts),
                },
            )

    def start_log_probs(self, texts: Sequence[GeneratedText]) -> list[Floats]:
        """Return log π_ref of every token, per text (tokens of it,)."""
        found: list[Floats] = []
        for batch in micro_batches(texts, self.batch_size, self.device):
            log_prob = self.start.evaluate_actions(batch.packed, batch.packed.actions)[1].double().cpu().numpy()
            found += split_by_text(log_prob, [texts[i] for i in batch.indices])
        return found
