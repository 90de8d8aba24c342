"""Contrastive pre-training: an encoder learns, without judgements, to tell texts apart under dropout."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling import losses
from textgym.reward_modeling.scorers.scorer import Prepared, Scorer


class MomentumEncoder:
    """A slow copy of an encoder with a queue of its keys (He et al. 2020, "MoCo", arXiv:1911.05722).

    Args:
        scorer: Whose encoder is followed.
        momentum: The copy's weights become momentum x copy + (1 - momentum) x original at every `follow`.
        queue_size: Keys kept as negatives; the oldest are replaced first.
    """

    def __init__(self, scorer: Scorer, momentum: float = 0.995, queue_size: int = 1024) -> None:
        if not 0 <= momentum < 1 or queue_size < 1:
            raise InvalidArgumentError(f"momentum must lie in [0, 1), queue_size be at least 1; got {momentum} and {queue_size}")
        self.copy = copy.deepcopy(scorer).requires_grad_(False)
        self.momentum, self.queue_size = momentum, queue_size
        self.queue = torch.zeros(0, 0)  # (keys so far, d), oldest first
        self.numbers = torch.zeros(0, dtype=torch.long)  # of the texts whose keys these are, (keys so far,); -1 for an unknown one

    @torch.no_grad()
    def follow(self, scorer: Scorer) -> None:
        """Move the copy's weights towards the scorer's."""
        for slow, fast in zip(self.copy.parameters(), scorer.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, prepared: Prepared) -> Tensor:
        """Return the copy's normalised vectors, (n, d), under a dropout mask of their own."""
        self.copy.train()
        return functional.normalize(self.copy.embed(prepared), dim=-1)

    def push(self, keys: Tensor, numbers: Tensor | None = None) -> None:
        """Append keys (n, d), and the numbers of their texts (n,), to the queue; the oldest fall out."""
        numbers = torch.full((len(keys),), -1) if numbers is None else numbers
        self.queue = torch.cat([self.queue.to(keys), keys] if len(self.queue) else [keys])[-self.queue_size :]
        self.numbers = torch.cat([self.numbers, numbers])[-self.queue_size :]


def contrastive_loss(
    scorer: Scorer,
    prepared: Prepared,
    slow: MomentumEncoder | None = None,
    temperature: float = 0.05,
    numbers: Sequence[int] | None = None,
) -> Tensor:
    """Return InfoNCE of two dropout views of a batch, or - with a momentum encoder - MoCo's loss, its keys being pushed afterwards.

    Args:
        scorer: Whose encoder learns.
        prepared: The texts.
        slow: The momentum encoder.
        temperature: Of the similarities.
        numbers: Of the texts, equal ones equal: a text counts once in a batch and is never its own negative, nor are its keys in the queue.
            None if the texts all differ, and from those before.
    """
    if numbers is not None:
        first = {number: row for row, number in reversed(list(enumerate(numbers)))}
        rows = sorted(first.values())
        prepared, numbers = [prepared[row] for row in rows], [numbers[row] for row in rows]
    if slow is None:
        return losses.info_nce(scorer.embed(prepared), scorer.embed(prepared), temperature)
    slow.follow(scorer)
    query, keys = scorer.embed(prepared), slow.keys(prepared)
    queue = slow.queue.to(keys) if len(slow.queue) else keys[:0]
    if numbers is None:
        loss = losses.moco(query, keys, queue, temperature)
        slow.push(keys)
        return loss
    own = torch.tensor(numbers)
    loss = losses.moco(query, keys, queue, temperature, (own[:, None] == slow.numbers[None]).to(keys.device))
    slow.push(keys, own)
    return loss


def pretrain(
    scorer: Scorer,
    texts: Sequence[str],
    *,
    method: str = "simcse",
    steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 3e-5,
    temperature: float = 0.05,
    momentum: float = 0.995,
    queue_size: int = 1024,
    seed: int = 0,
    show: Callable[[int, int, str], None] | None = None,
) -> list[float]:
    """Train a scorer's encoder on bare texts, in place.

    Args:
        scorer: One whose encoder learns ("transformer").
        texts: At least two different ones.
        method: "simcse" (in-batch negatives, two dropout views) or "moco" (momentum encoder, queue of negatives).
        steps, batch_size, learning_rate: Of AdamW; the rate falls linearly to 0.
        temperature: Of the similarities.
        momentum, queue_size: Of MoCo.
        seed: Of order and dropout.
        show: Called with (step, steps, note).

    Returns:
        The loss of each step, in nats.
    """
    if method not in ("simcse", "moco"):
        raise InvalidArgumentError(f'method must be "simcse" or "moco", got {method!r}')
    distinct = list(dict.fromkeys(texts))  # a text that occurs twice would be its own negative
    if len(distinct) < 2:
        raise InvalidArgumentError("contrastive pre-training needs at least two different texts")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    prepared = scorer.prepare(distinct)
    slow = MomentumEncoder(scorer, momentum, queue_size) if method == "moco" else None
    optimizer = torch.optim.AdamW(scorer.parameter_groups(learning_rate))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    scorer.train()
    history = []
    for step in range(1, steps + 1):
        rows = torch.randperm(len(distinct), generator=generator)[:batch_size].tolist()
        loss = contrastive_loss(scorer, [prepared[row] for row in rows], slow, temperature, rows)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(float(loss.detach()))
        if show is not None:
            show(step, steps, f"contrastive loss {history[-1]:.3f}")
    return history
