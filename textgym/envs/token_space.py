"""TokenSpace: the discrete action space of token ids, with the ids that may be chosen and the rule by which a policy chooses."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray


class TokenSpace(spaces.Discrete):
    """`Discrete(n)` whose samples are always allowed tokens.

    Args:
        allowed_mask: (n,) bool, True where the token may be chosen.

    Attributes:
        allowed_mask: As given.
        sampling_rule: Temperature and top-k of the policy that acts in this space, set by the policy, read by the rollout buffer so that
            the reference model's log-probabilities follow the same rule. None until a policy says otherwise.
    """

    def __init__(self, allowed_mask: NDArray[np.bool_], seed: int | np.random.Generator | None = None) -> None:
        super().__init__(len(allowed_mask), seed=seed)
        self.allowed_mask = allowed_mask
        self.sampling_rule: Any = None

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        """Draw a token uniformly from the allowed ones (and from `mask`, (n,) int8, if given)."""
        if probability is not None:
            return super().sample(probability=probability)
        allowed = self.allowed_mask if mask is None else self.allowed_mask & np.asarray(mask, np.bool_)
        return super().sample(mask=allowed.astype(np.int8))

    def __repr__(self) -> str:
        return f"TokenSpace({self.n}, {int(self.allowed_mask.sum())} allowed)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenSpace) and bool(np.array_equal(self.allowed_mask, other.allowed_mask))


class TokenBatchSpace(spaces.MultiDiscrete):
    """n times a `TokenSpace`, the action space of the vector environment; its samples are always allowed tokens too."""

    def __init__(self, single: TokenSpace, n: int) -> None:
        super().__init__(np.full(n, single.n), dtype=np.int64, seed=deepcopy(single.np_random))
        self.allowed_mask = single.allowed_mask

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.int64]:
        """Draw a token per row, uniformly from the allowed ones, or as Gymnasium's `mask` or `probability` say."""
        if mask is not None or probability is not None:
            return super().sample(mask=mask, probability=probability)
        return self.np_random.choice(np.flatnonzero(self.allowed_mask), self.shape)


@batch_space.register(TokenSpace)
def _batch_token_space(space: TokenSpace, n: int = 1) -> TokenBatchSpace:
    return TokenBatchSpace(space, n)
