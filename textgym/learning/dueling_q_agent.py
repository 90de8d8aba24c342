"""DuelingQAgent: a QAgent whose policy itself is the Q function - the value head is V, the logits are the advantages."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from textgym.learning.micro_batches import MicroBatch, micro_batches
from textgym.learning.q_agent import QAgent
from textgym.policies.generation import GeneratedText


class DuelingQAgent(QAgent):
    """Q(s, a) = V(s) + A(s, a), both regressed together on the targets. Subclasses say how A follows from the logits."""

    @abstractmethod
    def q_of_tokens(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return V of the prefixes and A of the chosen tokens, (T,) each, of the policy, with gradients."""

    @abstractmethod
    def target_values(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the same of the target network, (T,) each; asked after `q_of_tokens`, about the same batch."""

    def losses(self, texts: Sequence[GeneratedText]) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield ½ (Q − y)², a mean over tokens, in parts."""
        n_tokens = sum(len(t.action_ids) for t in texts)
        for batch in micro_batches(texts, self.batch_size, self.device):
            values, advantages = self.q_of_tokens(batch)
            with torch.no_grad():
                targets = self.targets(batch, texts, *self.target_values(batch))
            q = values + advantages
            loss = 0.5 * (q - targets).square().sum() / n_tokens
            yield loss, {"loss": loss.item(), "q_mean": q.sum().item() / n_tokens, "target_mean": targets.sum().item() / n_tokens}
