"""GAIL: the policy is paid by a discriminator that learns, beside it, to tell its texts from an expert's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.agent import Bounds
from textgym.errors import InvalidArgumentError
from textgym.imitation.expert_texts import expert_tokens
from textgym.imitation.learner import DiscriminatorLearner, DiscriminatorSettings
from textgym.learning.clipped_surrogate import clipped_surrogate
from textgym.learning.epoch_agent import EpochAgent, step_figures
from textgym.learning.given_texts import best_share, reference_texts
from textgym.learning.micro_batches import micro_batches, split_by_text
from textgym.learning.replay import TokenReplay
from textgym.learning.returns import generalized_advantages, whitened
from textgym.lm.language_model import load_language_model
from textgym.plugin_manager import check_options
from textgym.policies.generation import GeneratedText, generate
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.reward_forms import FORMS, Form, check_form
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task

Floats = NDArray[np.float64]


class GAILAgent(EpochAgent):
    """Generative adversarial imitation learning (Ho and Ermon 2016, arXiv:1606.03476) over prefixes and tokens.

    Each iteration writes texts and keeps them; the discriminator D takes steps on −E_expert[log D] − E_policy[log(1 − D)], against replayed
    texts of the policy; then every token is paid by D, less the KL penalty, and the policy takes clipped steps (PPO's surrogate) on
    generalised advantages with its value head. A text that ends before the horizon stays in an absorbing state, whose reward D learns
    (Kostrikov et al. 2019, arXiv:1809.02925) and which is paid to its last token in closed form. Prompts are drawn from the expert's, where
    the task has them.

    Args:
        task: As for `textgym.make_agent`.
        expert: A file or registered set of expert texts; "" for the task's references.
        share: Share of the references that are imitated, by the task's reward; ties with the last one are kept.
        form: What D pays: "log-odds", "positive" or "negative", see `textgym.reward_modeling.reward_forms.reward_of`.
        reward_clip: Log-odds are cut to ± this before.
        task_reward_coef: Weight of the task's own reward beside D's.
        discriminator: Settings of D, by name: those of `textgym.imitation.learner.DiscriminatorSettings`, such as
            {"absorbing": false, "trunk": "frozen", "penalty": "r1"}.
        discriminator_updates: Its steps per iteration, each on `n_envs` texts of either side.
        replay_iterations: The policy's texts of at least so many iterations are kept. D lags behind the policy by as much.
        gamma, gae_lambda: Of the advantages.
        vf_coef: Weight of the value loss.
        normalize_advantage: Divide advantages by their standard deviation over the iteration; else steps shrink as the discriminator finds
            less to tell the texts apart by, and learning settles.
        learning_rate: Of the policy's Adam; lower than where the reward stands still.
        **settings: Those of `textgym.learning.epoch_agent.EpochAgent`, `textgym.learning.text_agent.TextAgent` and `textgym.agent.Agent`.
    """

    replay: TokenReplay
    bounds: ClassVar[Bounds] = {"gamma": (0, 1), "gae_lambda": (0, 1), "vf_coef": (0, inf)}
    search_space: ClassVar[SearchSpace] = {
        "share": Range(0.05, 1.0, log=True),
        "form": Choice(FORMS),
        "discriminator_updates": Range(1, 8),
        "replay_iterations": Range(1, 4),
    }

    def __init__(
        self,
        task: str | Task,
        expert: str = "",
        share: float = 0.25,
        form: Form = "log-odds",
        reward_clip: float = 10.0,
        task_reward_coef: float = 0.0,
        discriminator: Mapping[str, Any] | None = None,
        discriminator_updates: int = 4,
        replay_iterations: int = 2,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        vf_coef: float = 0.1,
        normalize_advantage: bool = False,
        learning_rate: float = 3e-4,
        **settings: Any,
    ) -> None:
        check_form(form)
        if not reward_clip > 0 or discriminator_updates < 1 or replay_iterations < 1:
            raise InvalidArgumentError(
                f"reward_clip must be above 0, discriminator_updates and replay_iterations at least 1, got {reward_clip}, "
                f"{discriminator_updates} and {replay_iterations}"
            )
        check_options("discriminator", DiscriminatorSettings, dict(discriminator or {}))
        chosen = DiscriminatorSettings(**(discriminator or {}))
        super().__init__(task, learning_rate=learning_rate, **settings)
        self.form, self.reward_clip, self.task_reward_coef = form, reward_clip, task_reward_coef
        self.discriminator_updates, self.gamma, self.gae_lambda, self.vf_coef = discriminator_updates, gamma, gae_lambda, vf_coef
        self.normalize_advantage = normalize_advantage
        mdp = self.env.mdp
        if expert:
            given = load_judgements(expert)
            given = given.split("train") if any(item.split for item in given.items) else given
            self.expert = expert_tokens(given, self.task, mdp.vocabulary, mdp.max_new_tokens)
        else:
            self.expert = best_share(reference_texts(mdp), share)
        places = {tuple(ids): place for place, ids in enumerate(mdp.prompt_set.ids)}
        known = [places[key] for key in (tuple(t.prompt_ids.tolist()) for t in self.expert) if key in places]
        self.prompts = known or list(range(mdp.n_prompts))
        with torch.random.fork_rng():  # whatever was drawn before, by a reward that is loaded once, say
            torch.manual_seed(self.seed)
            network = chosen.network(load_language_model(self.model, device=self.device))
        self.learner = DiscriminatorLearner(network, chosen, mdp.max_new_tokens, self.batch_size)
        self.training_modules["discriminator"] = network
        self.replay = TokenReplay(replay_iterations * mdp.n_rows * mdp.max_length)

    def iterate(self) -> int:
        """Write texts, teach the discriminator, let it pay, take clipped steps."""
        prompts = self.rng.choice(self.prompts, size=self.env.num_envs).tolist()
        texts = generate(self.policy, self.env.mdp, prompts, self.rng)
        self.replay.add(texts, [np.zeros(len(t.action_ids)) for t in texts])
        figures = self.teach()
        paid = self.rewards(texts)
        rewards, kl = self.penalised_rewards([replace(t, rewards=r) for t, r in zip(texts, paid, strict=True)])
        self.log_texts(texts, kl, discriminator_reward=float(np.nanmean([r.sum() for r in paid])))
        for name, value in figures.items():
            self.logger.record(f"train/discriminator_{name}", value)
        kept = [i for i, r in enumerate(rewards) if np.isfinite(r).all()]  # less those that the task's reward gave up
        if kept:
            columns = self.columns([texts[i] for i in kept], [rewards[i] for i in kept])
            learnt = [texts[i] for i in kept]
            self.take_steps(learnt, range(len(learnt)), lambda part: self.losses(learnt, columns, part))
        return sum(len(t.action_ids) for t in texts)

    def teach(self) -> dict[str, float]:
        """Let the discriminator take its steps; return the means of their figures."""
        steps = []
        for _ in range(self.discriminator_updates):
            expert = [self.expert[i] for i in self.rng.integers(len(self.expert), size=self.env.num_envs)]
            steps.append(self.learner.step(expert, self.replay.sample(self.env.num_envs, self.rng), self.rng))
        return {name: float(np.mean([s[name] for s in steps])) for name in steps[0]}

    def rewards(self, texts: Sequence[GeneratedText]) -> list[Floats]:
        """Return what the discriminator pays for each token, and `task_reward_coef` of the task's reward, per text (tokens of it,)."""
        paid = self.learner.rewards(texts, self.form, self.reward_clip, self.gamma)
        if not self.task_reward_coef:
            return paid
        return [ours + self.task_reward_coef * t.rewards for ours, t in zip(paid, texts, strict=True)]

    def columns(self, texts: Sequence[GeneratedText], rewards: Sequence[Floats]) -> dict[str, list[Floats]]:
        """Return "old" (log-probabilities when written), "advantage" and "return" of each token, per text (tokens of it,)."""
        with torch.no_grad():
            parts = [self.policy.predict_values(b.packed).squeeze(-1) for b in micro_batches(texts, self.batch_size, self.device)]
        values = split_by_text(torch.cat(parts).double().cpu().numpy(), texts)
        advantages = [generalized_advantages(r, v, self.gamma, self.gae_lambda) for r, v in zip(rewards, values, strict=True)]
        returns = [a + v for a, v in zip(advantages, values, strict=True)]
        if self.normalize_advantage:
            advantages = whitened(advantages)
        return {"old": [t.log_probs.astype(np.float64) for t in texts], "advantage": advantages, "return": returns}

    def losses(
        self, texts: Sequence[GeneratedText], columns: Mapping[str, Sequence[Floats]], part: Sequence[int]
    ) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield the parts of one step's loss: −min(r Â, clip(r, 1 − ε, 1 + ε) Â) + vf_coef (V − R)², means over tokens."""
        n_tokens = sum(len(texts[i].action_ids) for i in part)
        for batch in micro_batches(texts, self.batch_size, self.device, columns, part):
            values, log_prob, entropy = self.policy.evaluate_actions(batch.packed, batch.packed.actions)
            log_ratio = log_prob - batch.columns["old"]
            surrogate, clipped = clipped_surrogate(log_ratio, batch.columns["advantage"], self.clip_range, self.clip_range)
            value_loss = (values - batch.columns["return"]).square().sum() / n_tokens
            loss = surrogate.sum() / n_tokens + self.vf_coef * value_loss
            figures = step_figures(loss, log_ratio, entropy, clipped, n_tokens, n_tokens)
            yield loss, {**figures, "value_loss": value_loss.item()}

    # --- exact resume --------------------------------------------------------------------------------------------------------------

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the policy's optimizer and the discriminator's."""
        return {**super().optimizers(), "discriminator": self.learner.optimisation.optimizer}
