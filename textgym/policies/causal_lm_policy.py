"""CausalLMPolicy: a causal language model with a value head as a stable-baselines3 policy."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from textgym.envs.token_space import TokenSpace
from textgym.errors import InvalidArgumentError
from textgym.files import replaced_folder
from textgym.lm.adapters import LoRA
from textgym.lm.language_model import load_language_model
from textgym.lm.packing import PackedBatch
from textgym.lm.prefix_cache import PrefixCache
from textgym.lm.token_distribution import SamplingRule, log_prob_and_entropy, sample
from textgym.tokenization import load_vocabulary

VALUE_HEAD_FILE = "value_head.safetensors"


def no_learning(_: float) -> float:
    """Return the learning rate 0: the schedule of a policy whose optimizer somebody else sets up."""
    return 0.0


class CausalLMPolicy(BasePolicy):
    """Policy and value function on one causal language model, for unmodified PPO, A2C and TRPO.

    In the rollout, prefixes are read through a content-keyed KV cache, one token per row and step; in the update, each minibatch of an
    `EpisodeRolloutBuffer` is one pass per episode segment. Sampling, log-probabilities and entropy follow one rule (temperature, top-k,
    allowed tokens).

    Args:
        observation_space: `input_ids` and `attention_mask`, int64 (L,).
        action_space: `Discrete(vocabulary size)`; a `TokenSpace` also says which tokens are allowed.
        lr_schedule: Learning rate as a function of the remaining progress.
        model: Registered name, directory, `.gguf` file or hub id of the language model (a name, never a module: stable-baselines3 copies
            `policy_kwargs`).
        temperature, top_k: The sampling rule.
        dtype: Of the weights: "float32", "bfloat16".
        attention: Hugging Face's `attn_implementation`; TRPO needs "eager".
        autocast: Dtype to compute in where it is not that of the weights: "bfloat16" beside weights and optimizer in float32; "" for none.
        lora_rank: Rank of adapters that learn in place of the language model's weights (the value head learns as ever); 0 for none.
        lora_alpha, lora_targets: See `textgym.lm.adapters.LoRA`.
        gradient_checkpointing: Keep no activations inside the layers for the backward pass but compute them again: memory for time.
        detach_value: True keeps the value loss out of the language model.
        optimizer_class, optimizer_kwargs: Of the single optimizer over language model and value head.
        use_sde: Must be False (stable-baselines3 passes it).

    References:
        Schulman et al. 2017, arXiv:1707.06347 (PPO); Ziegler et al. 2019, arXiv:1909.08593 (language models as policies with a value head).
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Callable[[float], float],
        model: str | os.PathLike[str] = "reviews",
        temperature: float = 1.0,
        top_k: int = 0,
        dtype: str = "float32",
        attention: str = "sdpa",
        autocast: str = "",
        lora_rank: int = 0,
        lora_alpha: float | None = None,
        lora_targets: str | Sequence[str] | None = None,
        gradient_checkpointing: bool = False,
        detach_value: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ) -> None:
        if use_sde:
            raise InvalidArgumentError("use_sde is for continuous actions; tokens are discrete")
        optimizer_kwargs = dict(optimizer_kwargs or {})
        if optimizer_class in (torch.optim.Adam, torch.optim.AdamW):
            optimizer_kwargs.setdefault("fused", True)  # one pass over each weight instead of ten
        super().__init__(observation_space, action_space, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)
        self.settings: dict[str, Any] = {
            "model": os.fspath(model),
            "temperature": temperature,
            "top_k": top_k,
            "dtype": dtype,
            "attention": attention,
            "autocast": autocast,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "gradient_checkpointing": gradient_checkpointing,
            "detach_value": detach_value,
        }
        self.detach_value = detach_value
        lora = LoRA(lora_rank, lora_alpha, lora_targets) if lora_rank else None
        self.lm = load_language_model(
            model, dtype, attention=attention, autocast=autocast, lora=lora, gradient_checkpointing=gradient_checkpointing
        )
        self.vocabulary = load_vocabulary(model)  # kept: a checkpoint's folder may be gone when this policy is saved again
        if not isinstance(action_space, spaces.Discrete) or self.lm.vocabulary_size != action_space.n:
            raise InvalidArgumentError(
                f"model {os.fspath(model)!r} has {self.lm.vocabulary_size} tokens but the environment's action space is {action_space}: "
                f"pass the same model= to the environment and to the policy"
            )
        self.rule = SamplingRule(temperature, top_k)
        allowed = torch.ones(int(action_space.n), dtype=torch.bool)
        if isinstance(action_space, TokenSpace):
            allowed = torch.from_numpy(action_space.allowed_mask.copy())
            action_space.sampling_rule = self.rule
        self.allowed: Tensor
        self.register_buffer("allowed", allowed, persistent=False)
        self.value_head = nn.Linear(self.lm.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)  # every value is 0 at first, so the first advantages are the returns
        nn.init.zeros_(self.value_head.bias)
        folder = Path(os.fspath(model))
        if (folder / VALUE_HEAD_FILE).is_file():
            from safetensors.torch import load_file

            self.value_head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
        self.cache = PrefixCache(self.lm)
        learning = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(learning, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    # --- what stable-baselines3 calls in a rollout ------------------------------------------------------------------------------

    def forward(self, obs: dict[str, Tensor], deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (n,), values (n, 1) and log-probabilities (n,) for a batch of prefixes."""
        hidden = self._cached_hidden(obs)
        logits = self.rule.apply(self._logits(hidden), self._allowed_after(obs, cached=True))
        actions = self._choose(logits, deterministic)
        return actions, self._values(hidden)[:, None], logits.log_softmax(-1).gather(-1, actions[:, None]).squeeze(-1)

    def predict_values(self, obs: dict[str, Tensor] | PackedBatch) -> Tensor:
        """Return values, (n, 1)."""
        hidden = self._hidden(obs) if torch.is_grad_enabled() or isinstance(obs, PackedBatch) else self._cached_hidden(obs)
        return self._values(hidden)[:, None]

    def _predict(self, observation: dict[str, Tensor], deterministic: bool = False) -> Tensor:  # type: ignore[override]
        logits = self.rule.apply(self._logits(self._cached_hidden(observation)), self._allowed_after(observation, cached=True))
        return self._choose(logits, deterministic)

    def set_training_mode(self, mode: bool) -> None:
        """Switch to training (True: weights are about to change, so the cache is dropped) or evaluation."""
        if mode:
            self.clear_cache()
        super().set_training_mode(mode)

    def clear_cache(self) -> None:
        """Forget every prefix that was read."""
        self.cache.clear()

    def move_cached_rows(self, sources: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], n_left: int) -> None:
        """Say that rows of the running batch take the places of others, and that it has only the first `n_left` from now on (and may grow again)."""
        self.cache.move_rows(sources, targets, n_left)

    # --- what it calls in an update ----------------------------------------------------------------------------------------------

    def evaluate_actions(self, obs: dict[str, Tensor] | PackedBatch, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (B,), log-probabilities (B,) and entropies (B,) of the actions, with gradients.

        Args:
            obs: A `PackedBatch` from `EpisodeRolloutBuffer`, or full prefixes from stable-baselines3's own buffer.
            actions: (B,) int64.
        """
        hidden = self._hidden(obs)
        allowed = self._allowed_after(obs, cached=False, chosen=actions)
        log_prob, entropy = log_prob_and_entropy(self.rule.apply(self._logits(hidden), allowed, chosen=actions), actions)
        return self._values(hidden), log_prob, entropy

    def get_distribution(self, obs: dict[str, Tensor] | PackedBatch) -> Any:
        """Return stable-baselines3's categorical distribution over the next tokens (TRPO differentiates it twice)."""
        from stable_baselines3.common.distributions import CategoricalDistribution

        logits = self.rule.apply(self._logits(self._hidden(obs)), self._allowed_after(obs, cached=False))
        return CategoricalDistribution(self.lm.vocabulary_size).proba_distribution(logits)

    # --- text ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, obs: dict[str, np.ndarray[Any, Any]], uniform: np.ndarray[Any, Any] | None
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the next token of each prefix, (n,) int64, and its log-probability, (n,) float32.

        Args:
            obs: `input_ids` and `attention_mask`, (n, L).
            uniform: (n,) numbers in [0, 1) to draw with; None for the most probable tokens.
        """
        tensors = {key: torch.as_tensor(value, device=self.device) for key, value in obs.items()}
        logits = self.rule.apply(self._logits(self._cached_hidden(tensors)), self._allowed_after(tensors, cached=True))
        drawn = logits.argmax(-1) if uniform is None else sample(logits, torch.as_tensor(uniform, dtype=torch.float32, device=self.device))
        log_probs = logits.log_softmax(-1).gather(-1, drawn[:, None]).squeeze(-1)
        return drawn.cpu().numpy(), log_probs.cpu().numpy()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a Hugging Face folder that `AutoModelForCausalLM` and `AutoTokenizer` load; the value head lies beside in its own file."""
        from safetensors.torch import save_file

        with replaced_folder(folder) as aside:
            self.lm.save_pretrained(aside)
            self.vocabulary.tokenizer.save_pretrained(aside)
            save_file({k: v.contiguous().cpu() for k, v in self.value_head.state_dict().items()}, aside / VALUE_HEAD_FILE)

    @torch.no_grad()
    def share_frozen_weights(self, other: "CausalLMPolicy") -> None:
        """Hold the frozen weights of `other`, which has the same base model and adapters of its own, instead of a second copy of them."""
        theirs = dict(other.lm.named_parameters())
        for name, parameter in self.lm.named_parameters():
            if not parameter.requires_grad:
                parameter.data = theirs[name].data

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": no_learning,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self.settings,
        }

    # --- the one hidden-state function and the one distribution -------------------------------------------------------------------

    def _hidden(self, obs: dict[str, Tensor] | PackedBatch) -> Tensor:
        if isinstance(obs, PackedBatch):
            return self.lm.packed_hidden(obs)
        return self.lm.last_hidden(obs["input_ids"].long(), obs["attention_mask"].long().sum(1))

    def _cached_hidden(self, obs: dict[str, Tensor]) -> Tensor:
        return self.cache.last_hidden(obs["input_ids"].long(), obs["attention_mask"].long())

    def _allowed_after(self, obs: dict[str, Tensor] | PackedBatch, cached: bool, chosen: Tensor | None = None) -> Tensor:
        """Return the tokens that may follow, (vocab,) or (n, vocab) bool; subclasses may let it depend on the prefix.

        Args:
            obs: Prefixes.
            cached: True in a rollout, where prefixes are read through a cache.
            chosen: (n,) tokens that were drawn and so were allowed.
        """
        del obs, cached, chosen
        return self.allowed

    def _logits(self, hidden: Tensor) -> Tensor:
        """Return the logits, (n, vocab), that the sampling rule is applied to; subclasses may shift those of the language model."""
        return self.lm.logits(hidden)

    def _values(self, hidden: Tensor) -> Tensor:
        hidden = hidden.detach() if self.detach_value else hidden
        values: Tensor = self.value_head(hidden.float()).squeeze(-1)
        return values

    def _choose(self, logits: Tensor, deterministic: bool) -> Tensor:
        if deterministic:
            return logits.argmax(-1)
        # stable-baselines3 passes no generator: this draws from torch's global one, which its `seed` argument seeds
        return sample(logits, torch.rand(len(logits), device=logits.device))
