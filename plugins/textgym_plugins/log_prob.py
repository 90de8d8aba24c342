"""The reward "log-prob": how probable a continuation is under a frozen language model (autoregressive probability)."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import textgym

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from textgym.policies.reference import ReferenceModel
    from textgym.tokenization import Vocabulary


class LogProb:
    """Log-probability of the continuation under a frozen language model, mean per token; at most 0 nats.

    Args:
        model: Name, directory, `.gguf` file or hub id of the language model; it reads the texts with its own tokenizer.
        device: Where it runs.
        dtype: Of its weights.
        dense: True pays each token its own log-probability when it is chosen, at one cached pass per token; the policy must then use the
            same vocabulary, and the score of a finished episode is the sum over its tokens. False pays the mean at the end.

    An empty continuation scores the log-probability of ending the text at once.
    """

    high = 0.0
    deterministic = True
    version = "1"
    license = "Apache-2.0"

    def __init__(self, model: str = "reviews", device: str = "cpu", dtype: str = "float32", dense: bool = False) -> None:
        self.model, self.device, self.dtype, self.dense = model, device, dtype, dense
        self.reads_tokens = dense

    @cached_property
    def _reference(self) -> "ReferenceModel":
        from textgym.policies.reference import ReferenceModel

        return ReferenceModel(self.model, self.device, self.dtype)

    def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the mean log-probability per token, (n,), in nats; with `dense` the sum."""
        return [float(values.sum() if self.dense else values.mean()) for values in self.score_tokens(episodes)]

    def score_tokens(self, episodes: Sequence[textgym.Episode]) -> "list[NDArray[np.float32]]":
        """Return the log-probability of every token of each continuation, in nats.

        With `dense` the tokens are the episode's own, where it has the prompt's and the continuation's; else the model's own tokenizer
        reads the text. (What another trainer passes has the continuation's alone, and those are its own model's.)
        """
        from textgym.lm.token_distribution import SamplingRule
        from textgym.rewards.segments import segments_of
        from textgym.tokenization import load_vocabulary

        segments = segments_of(episodes, load_vocabulary(self.model), own_ids=self.dense)
        # one text at a time, so that a batch scores exactly as its texts alone
        return [self._reference.log_probs([segment], SamplingRule(), None) for segment in segments]

    def token_scorer(self, n_rows: int, vocabulary: "Vocabulary") -> "TokenLogProb | None":
        """Return the dense form, or None if it was not asked for."""
        if not self.dense:
            return None
        from textgym.rewards.segments import require_same_tokens
        from textgym.tokenization import load_vocabulary

        own = load_vocabulary(self.model)
        require_same_tokens(own, vocabulary, "log-prob with dense=True", "use dense=False, which reads the text")
        return TokenLogProb(self._reference, n_rows, own.context_length)


class TokenLogProb:
    """The dense form of "log-prob": each prompt is read once, each token once, whatever the prefix's length."""

    def __init__(self, reference: "ReferenceModel", n_rows: int, context_length: int) -> None:
        import torch

        from textgym.lm.running_rows import RunningRows

        self._lm, self._device = reference.lm, reference.device
        self._rows = RunningRows(reference.lm, n_rows, context_length, "log-prob")
        self._newest = torch.zeros(n_rows, dtype=torch.long, device=reference.device)  # each row's last token, not read yet

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new texts in `rows`."""
        import torch

        self._rows.start(rows, [prompt[:-1] for prompt in prompts])
        self._newest[list(rows)] = torch.tensor([prompt[-1] for prompt in prompts], dtype=torch.long, device=self._device)

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability of the newest token of each row, in nats."""
        import torch

        which, tokens = torch.tensor([list(rows), list(token_ids)], device=self._device)
        hidden = self._rows.step(which, self._newest[which])
        with torch.inference_mode():
            log_probs = self._lm.logits(hidden).float().log_softmax(-1)
        self._newest[which] = tokens
        scores: list[float] = log_probs.gather(1, tokens[:, None]).squeeze(1).tolist()
        return scores


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register the reward."""
    register("log-prob", LogProb)
