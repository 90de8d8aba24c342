"""Optimisation: one network's optimizer with its schedule, gradient accumulation, clipping, and a stop when learning diverges."""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from textgym.errors import DivergenceError, InvalidArgumentError
from textgym.policies.causal_lm_policy import CausalLMPolicy

Schedule: TypeAlias = Literal["constant", "linear"]
SCHEDULES = ("constant", "linear")


class Optimisation:
    """Steps on a network.

    Args:
        module: What learns; a `CausalLMPolicy` brings its own optimizer, anything else gets Adam (AdamW).
        learning_rate: At the start.
        max_grad_norm: Gradients are scaled down to this L2 norm.
        schedule: "constant", or "linear" down to 0 at the end of the budget.
        weight_decay: Of AdamW, for anything but a policy.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        max_grad_norm: float = 1.0,
        schedule: Schedule = "constant",
        weight_decay: float = 0.0,
    ) -> None:
        if schedule not in SCHEDULES:
            raise InvalidArgumentError(f"lr_schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        if not weight_decay >= 0:
            raise InvalidArgumentError(f"weight_decay must be at least 0, got {weight_decay}")
        if not learning_rate > 0 or not max_grad_norm > 0:
            raise InvalidArgumentError(f"learning_rate and max_grad_norm must be greater than 0, got {learning_rate} and {max_grad_norm}")
        self.module, self.learning_rate, self.max_grad_norm, self.schedule = module, learning_rate, max_grad_norm, schedule
        learning = [p for p in module.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer = (
            module.optimizer
            if isinstance(module, CausalLMPolicy)
            else torch.optim.AdamW(learning, lr=learning_rate, weight_decay=weight_decay, fused=True)
        )

    def scale_learning_rate(self, parameters: Iterable[nn.Parameter], scale: float) -> None:
        """Let some parameters learn at `scale` times the learning rate; those that the optimizer does not hold yet are added."""
        if not scale > 0:
            raise InvalidArgumentError(f"a learning rate can be scaled by a number greater than 0, got {scale}")
        chosen = list(parameters)
        theirs = set(map(id, chosen))
        for group in self.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in theirs]
        self.optimizer.add_param_group({"params": chosen, "lr_scale": float(scale)})

    def step(self, losses: Iterable[tuple[Tensor, Mapping[str, float]]], progress: float = 0.0) -> dict[str, float]:
        """Take one optimizer step on the sum of the losses; return the sums of their figures, and the gradient's norm.

        Args:
            losses: The parts of one loss, each with figures for the log; made one after the other, so that only one pass is in memory.
            progress: Share of the budget that is behind, for the schedule.
        """
        for group in self.optimizer.param_groups:
            decay = 1.0 - progress if self.schedule == "linear" else 1.0
            group["lr"] = self.learning_rate * decay * group.get("lr_scale", 1.0)
        _set_training(self.module, True)
        self.optimizer.zero_grad()
        figures: dict[str, float] = {}
        for loss, parts in losses:
            if not torch.isfinite(loss):
                raise DivergenceError(f"the loss became {loss.item()}{self._where()}: {ADVICE}")
            loss.backward()  # type: ignore[no-untyped-call]
            for name, value in parts.items():
                figures[name] = figures.get(name, 0.0) + value
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm))
        if norm != norm or norm == float("inf"):
            bad = [n for n, p in self.module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
            raise DivergenceError(f"the gradient of {bad[0] if bad else 'the loss'} became {norm}{self._where()}: {ADVICE}")
        self.optimizer.step()
        _set_training(self.module, False)
        return {**figures, "grad_norm": norm}

    def _where(self) -> str:
        return f" with a learning rate of {self.optimizer.param_groups[0]['lr']:g}"


ADVICE = "lower learning_rate, raise kl_coef, or bound the reward"


def _set_training(module: nn.Module, mode: bool) -> None:
    """Switch a network to learning or not; a policy then also drops its cache."""
    if isinstance(module, CausalLMPolicy):
        module.set_training_mode(mode)
    else:
        module.train(mode)
