"""DiscriminatorReward: a fitted discriminator as a reward, token by token or for whole texts."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import InvalidArgumentError
from textgym.files import replaced_folder, write_text
from textgym.reward_modeling.reward_folder import DISCRIMINATOR, describe, read_description, refuse_foreign
from textgym.reward_modeling.reward_forms import Form, absorbing_return, check_form, reward_of

if TYPE_CHECKING:
    from textgym.imitation.token_discriminator import TokenDiscriminator
    from textgym.lm.running_rows import RunningRows
    from textgym.tokenization import Vocabulary

WEIGHTS = "weights.safetensors"
LM = "lm"  # sub-folder: configuration and tokenizer of the language model inside


class DiscriminatorReward:
    """What a discriminator of `textgym reward discriminate` pays: each token how much it looks like the expert's.

    A finished text scores the sum over its tokens; with absorbing states, one that ends with end-of-text before the horizon is paid for
    the steps left, so that neither short nor long texts are favoured as such.

    Args:
        path: The folder.
        form: "log-odds", "positive" or "negative", see `reward_forms.reward_of`.
        clip: Log-odds are cut to ± this before.
        dense: True pays each token when it is chosen, at one cached pass per token; the policy must then use the same vocabulary. False
            pays the sum at the end.
        device: Where it runs.
        check_versions: False reads a folder that another major version of a package wrote.

    Attributes:
        horizon: Steps of every text; 0 for a discriminator without absorbing states.
        description: What `discriminator.json` says: settings, versions, hashes, figures on held-out texts.
    """

    deterministic = True

    def __init__(
        self,
        path: str,
        form: Form = "log-odds",
        clip: float = 10.0,
        dense: bool = True,
        device: str = "cpu",
        check_versions: bool = True,
    ) -> None:
        check_form(form)
        if not clip > 0:
            raise InvalidArgumentError(f"clip must be above 0, got {clip}")
        self.path, self.form, self.clip, self.dense, self.device = path, form, clip, dense, device
        self.reads_tokens = dense
        self.description = read_description(Path(path), check_versions, DISCRIMINATOR)
        self.horizon = int(self.description["horizon"])
        self.low = 0.0 if form == "positive" else -np.inf
        self.high = 0.0 if form == "negative" else np.inf

    @staticmethod
    def reads_folder(path: Path) -> bool:
        """Whether a folder holds a discriminator over tokens."""
        return (path / DISCRIMINATOR).is_file()

    @staticmethod
    def write(network: "TokenDiscriminator", vocabulary: "Vocabulary", folder: Path, description: dict[str, Any]) -> None:
        """Write a discriminator's folder, replacing an older one only when the new one is whole.

        Args:
            network: To be kept.
            vocabulary: Of its language model.
            folder: Where; an existing folder that holds something else is refused.
            description: "settings" (`DiscriminatorSettings` as plain data), "horizon", and whatever else is to be told.
        """
        from safetensors.torch import save_model

        refuse_foreign(folder)
        with replaced_folder(folder) as aside:
            save_model(network, str(aside / WEIGHTS))
            (aside / LM).mkdir()
            network.lm.model.config.save_pretrained(aside / LM)
            vocabulary.tokenizer.save_pretrained(aside / LM)
            complete = describe(aside, description, ("torch", "transformers"), DISCRIMINATOR)
            write_text(aside / DISCRIMINATOR, json.dumps(complete, indent=1, ensure_ascii=False) + "\n")

    @property
    def version(self) -> str:
        """The start of the hash over the whole model."""
        return str(self.description["files"][WEIGHTS])[:12]

    @cached_property
    def network(self) -> "TokenDiscriminator":
        """The discriminator, read when it is first asked."""
        from safetensors.torch import load_model

        from textgym.imitation.learner import DiscriminatorSettings
        from textgym.lm.language_model import load_language_model

        settings = DiscriminatorSettings(**self.description["settings"])
        network = settings.network(load_language_model(Path(self.path) / LM, device=self.device))
        try:
            load_model(network, Path(self.path) / WEIGHTS, device=self.device)
        except RuntimeError as error:
            raise InvalidArgumentError(f"discriminator {self.path!r}: {WEIGHTS} does not fit: {' '.join(str(error).split())}") from None
        return network.eval().requires_grad_(False)

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """Of the tokens it judges."""
        from textgym.tokenization import load_vocabulary

        return load_vocabulary(str(Path(self.path) / LM))

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the sums over the tokens, (n,)."""
        return [float(values.sum()) for values in self.score_tokens(episodes)]

    def score_tokens(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Return the reward of every token of each continuation, absorbing steps paid to the last one.

        With `dense` the tokens are the episode's own, where it has the prompt's and the continuation's; else the text is read by the
        discriminator's tokenizer, and ends with end-of-text if it was finished.
        """
        from textgym.imitation.learner import token_rewards
        from textgym.policies.generation import GeneratedText
        from textgym.rewards.segments import segments_of

        found = []
        # one text at a time, so that a batch scores exactly as its texts alone
        for prompt, chosen in segments_of(episodes, self.vocabulary, self.dense, end=True):
            text = GeneratedText(prompt, chosen, np.full(len(chosen), np.nan, np.float32), np.zeros(len(chosen)), {})
            horizon = self.horizon if chosen[-1] in self.vocabulary.eos_ids else 0
            found += token_rewards(self.network, [text], self.form, self.clip, horizon)
        return found

    def token_scorer(self, n_rows: int, vocabulary: "Vocabulary") -> "TokenDiscriminatorReward | None":
        """Return the dense form, or None if it was not asked for."""
        if not self.dense:
            return None
        from textgym.lm.running_rows import RunningRows
        from textgym.rewards.segments import require_same_tokens

        asker = f"discriminator {self.path!r} with dense=True"
        require_same_tokens(self.vocabulary, vocabulary, asker, "use dense=False, which reads the text")
        rows = RunningRows(self.network.lm, n_rows, self.vocabulary.context_length, f"discriminator {self.path!r}")
        return TokenDiscriminatorReward(self, rows, n_rows)


class TokenDiscriminatorReward:
    """The dense form: each prompt is read once, each token once, whatever the prefix's length."""

    def __init__(self, reward: DiscriminatorReward, rows: "RunningRows", n_rows: int) -> None:
        import torch

        self._reward, self._network, self._rows = reward, reward.network, rows
        self._newest = torch.zeros(n_rows, dtype=torch.long, device=self._network.device)  # each row's last token, not read yet
        self._length = np.zeros(n_rows, np.int64)
        self._ended = np.zeros(n_rows, np.bool_)
        self._after = float(reward_of(self._network.absorbing.cpu(), reward.form, reward.clip))

    def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin new texts in `rows`."""
        import torch

        self._rows.start(rows, [prompt[:-1] for prompt in prompts])
        self._newest[list(rows)] = torch.tensor([prompt[-1] for prompt in prompts], dtype=torch.long, device=self._newest.device)
        self._length[list(rows)] = 0

    def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
        """Return the reward of the newest token of each row."""
        import torch

        which, tokens = torch.tensor([list(rows), list(token_ids)], device=self._newest.device)
        hidden = self._rows.step(which, self._newest[which])
        with torch.inference_mode():
            log_odds = self._network.judge(self._network.inputs(hidden, tokens))
            paid: list[float] = reward_of(log_odds, self._reward.form, self._reward.clip).tolist()
        self._newest[which] = tokens
        self._length[list(rows)] += 1
        self._ended[list(rows)] = [token in self._reward.vocabulary.eos_ids for token in token_ids]
        return paid

    def finish(self, rows: Sequence[int]) -> list[float]:
        """Return what the absorbing steps after the end add, (len(rows),)."""
        left = [max(0, self._reward.horizon - int(self._length[row])) if self._ended[row] else 0 for row in rows]
        return [absorbing_return(self._after, n_steps) for n_steps in left]
