"""Whatever a user gives as a reward - function, object, per-token scorer, torch module - as a reward model."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError, RewardError
from textgym.rewards.protocol import RewardModel, Scores, TokenVectorRewardModel


def as_reward_model(given: Any, device: str | None = None, dtype: str | None = None) -> RewardModel:
    """Return `given` as an object with `score`.

    Args:
        given: An object with `score` or `score_tokens`, a callable `episodes -> scores`, or a `torch.nn.Module` that is one of these.
        device: Where a torch module is to run; None leaves it where it is.
        dtype: Of a torch module's weights; None leaves them.
    """
    if _is_module(given):
        return ModuleReward(given, device, dtype)
    if device is not None or dtype is not None:
        raise InvalidArgumentError(f"device and dtype fit a torch module, not {given!r}")
    if isinstance(given, RewardModel):
        return given
    if isinstance(given, TokenVectorRewardModel):
        return TokenVectorReward(given)
    if inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(getattr(given, "__call__", None)):  # noqa: B004
        return AsyncFunctionReward(given)
    if callable(given):
        return FunctionReward(given)
    raise InvalidArgumentError(f"a reward is a name, a callable episodes -> scores, or an object with score(episodes); got {given!r}")


class _Adapted:
    """A reward model around another object, whose declarations it keeps."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "wrapped":  # copy and pickle ask before `wrapped` is there
            raise AttributeError(name)
        return getattr(self.wrapped, name)


class FunctionReward(_Adapted):
    """A function `episodes -> scores` as a reward model."""

    def score(self, episodes: Sequence[Episode]) -> Scores:
        """Call the function."""
        return self.wrapped(episodes)


class AsyncFunctionReward(_Adapted):
    """A coroutine function `episodes -> scores` as a reward model."""

    async def score(self, episodes: Sequence[Episode]) -> Scores:
        """Await the function."""
        return await self.wrapped(episodes)


class TokenVectorReward(_Adapted):
    """A model of `score_tokens` as a reward model: the episode's score is the sum over its tokens."""

    reads_tokens = True

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the sums, (n,); raise `RewardError` for a vector that does not fit its episode's tokens."""
        vectors = list(self.wrapped.score_tokens(episodes))
        if len(vectors) != len(episodes):
            raise RewardError(f"score_tokens must return {len(episodes)} vectors for {len(episodes)} episodes, got {len(vectors)}")
        sums = []
        for vector, episode in zip(vectors, episodes, strict=True):
            values = np.asarray(vector.detach().cpu() if hasattr(vector, "detach") else vector, np.float64)
            if values.shape != (len(episode.continuation_ids),):
                wanted = len(episode.continuation_ids)
                raise RewardError(f"score_tokens must return {wanted} numbers for {wanted} tokens, got shape {values.shape}")
            sums.append(float(values.sum()))
        return sums


@dataclass
class ModuleReward:
    """A `torch.nn.Module` as a reward model: in evaluation mode, without gradients, on a device, with a dtype.

    Args:
        module: Has `score(episodes)`, or is called with the episodes; returns a tensor (n,).
        device, dtype: None to leave it as it is.
    """

    module: Any
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        import torch

        if self.dtype is not None and not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise InvalidArgumentError(f'dtype must be the name of a torch dtype ("float32", "bfloat16"), got {self.dtype!r}')
        if self.device is not None or self.dtype is not None:
            try:
                self.module = self.module.to(device=self.device, dtype=None if self.dtype is None else getattr(torch, self.dtype))
            except (RuntimeError, TypeError, AssertionError) as error:
                reason = " ".join(str(error).split())
                raise InvalidArgumentError(
                    f"the module cannot run on device {self.device!r} with dtype {self.dtype!r}: {reason}"
                ) from error
        self.scorer = as_reward_model(getattr(self.module, "score", None) or _token_vectors(self.module) or self.module.__call__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("module", "scorer"):
            raise AttributeError(name)
        return getattr(self.module, name)

    def score(self, episodes: Sequence[Episode]) -> Scores:
        """Return the module's scores."""
        import torch

        self.module.eval()  # dropout would make scores random
        with torch.inference_mode():
            return self.scorer.score(episodes)


def _is_module(given: Any) -> bool:
    return all(hasattr(given, name) for name in ("forward", "parameters", "state_dict")) and not isinstance(given, type)


def _token_vectors(module: Any) -> TokenVectorReward | None:
    return TokenVectorReward(module) if hasattr(module, "score_tokens") else None
