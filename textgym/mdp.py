"""TokenMDP: the batched transition core - prefixes, ends of episodes, rewards - behind every environment face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode, FinishReason
from textgym.errors import InvalidArgumentError, RewardError
from textgym.rewards.reward import Reward
from textgym.tasks import Prompt, Task, right_label
from textgym.tokenization import Vocabulary

Observation = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Transition:
    """What one step of the batch led to.

    Attributes:
        rewards: (n,) float64; 0 for rows that were not stepped.
        terminated: (n,) bool; True for rows whose episode ended in this step.
        infos: Row → `info` of the episode that ended there.
    """

    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    infos: Mapping[int, dict[str, Any]]


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one split with their token ids, and the longest prompt of all splits."""

    prompts: list[Prompt]
    ids: list[list[int]]
    max_length: int


def encode_prompts(task: Task, split: str, vocabulary: Vocabulary) -> PromptSet:
    """Return the prompts of a split as token ids; `max_length` covers all splits, so that their observations have one shape."""
    prompts = task.split(split)
    ids = vocabulary.encode([p.text for p in prompts])
    longest = max(map(len, ids))
    for other in task.prompts:
        if other != split and task.prompts[other]:
            longest = max(longest, *map(len, vocabulary.encode([p.text for p in task.split(other)])), 1)
    return PromptSet(prompts, ids, longest)


def allowed_tokens_mask(task: Task, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Return which tokens may be chosen in a task, (V,) bool: those the model allows, cut to the task's `allowed_tokens`; EOS if it may end."""
    mask = vocabulary.allowed_mask.copy()
    if task.allowed_tokens:
        mask[:] = False
        mask[vocabulary.token_ids(task.allowed_tokens, f"task {task.name!r} allows")] = True
    mask[list(vocabulary.eos_ids)] = task.may_end
    return mask


class TokenMDP:
    """n rows of text generation: state = prefix, action = next token, transition = append it.

    Every environment face holds one of these, so that single, vector and stable-baselines3 environments cannot differ.

    Args:
        task: Prompts and defaults.
        vocabulary: The token ids of the policy's language model.
        reward: Scores finished episodes (once per step, for all rows that ended in it) or single tokens.
        n_rows: Number of episodes run side by side.
        split: Which of the task's prompts to draw from.
        max_new_tokens: Token budget of a continuation; None for the task's own.
        drop_failed: What becomes of an episode that a reward served with `on_failure="drop"` could not score: True gives it the reward nan, for
            learners that leave such episodes out (`EpisodeRolloutBuffer`, the bundled agents); False raises `RewardError`.

    Attributes:
        n_steps: Tokens appended so far, over all rows.
        n_scored: Episodes that the reward was asked about so far.
    """

    def __init__(
        self,
        task: Task,
        vocabulary: Vocabulary,
        reward: Reward,
        n_rows: int = 1,
        split: str = "train",
        max_new_tokens: int | None = None,
        drop_failed: bool = False,
    ) -> None:
        budget = task.max_new_tokens if max_new_tokens is None else max_new_tokens
        if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or budget < 1:
            raise InvalidArgumentError(f"max_new_tokens must be an integer of at least 1, got {budget!r}")
        if n_rows < 1:
            raise InvalidArgumentError(f"the number of environments must be at least 1, got {n_rows}")
        self.task, self.vocabulary, self.reward, self.n_rows, self.split = task, vocabulary, reward, n_rows, split
        self.max_new_tokens, self.drop_failed = int(budget), drop_failed
        self.prompt_set = encode_prompts(task, split, vocabulary)
        self.max_length = self.prompt_set.max_length + self.max_new_tokens
        if self.max_length > vocabulary.context_length:
            raise InvalidArgumentError(
                f"the longest prompt of task {task.name!r} ({self.prompt_set.max_length} tokens) and max_new_tokens={self.max_new_tokens} "
                f"exceed the context of model {vocabulary.model!r} ({vocabulary.context_length} tokens): shorten one of them"
            )
        self.allowed_mask = allowed_tokens_mask(task, vocabulary)
        self._is_eos = np.zeros(vocabulary.size, np.bool_)
        self._is_eos[list(vocabulary.eos_ids)] = True
        self._ids = np.full((n_rows, self.max_length), vocabulary.pad_id, np.int64)  # (n, L)
        self._mask = np.zeros((n_rows, self.max_length), np.int64)  # (n, L)
        self._length = np.zeros(n_rows, np.int64)
        self._prompt_length = np.zeros(n_rows, np.int64)
        self._prompt_index = np.full(n_rows, -1, np.int64)
        self._rngs: list[np.random.Generator] = [np.random.default_rng() for _ in range(n_rows)]
        self._prompt_texts: dict[int, str] = {}
        self._session = reward.session(n_rows, vocabulary, learning=split == "train")
        self.n_steps = self.n_scored = 0

    @property
    def n_prompts(self) -> int:
        """Number of prompts in the split."""
        return len(self.prompt_set.prompts)

    def seed(self, row: int, rng: np.random.Generator) -> None:
        """Give a row the generator that draws its prompts."""
        self._rngs[row] = rng

    def reset(self, rows: Sequence[int] | NDArray[np.int64], prompt_indices: Sequence[int] | None = None) -> None:
        """Begin a new episode in each of `rows`, with the given prompts or with ones drawn by each row's own generator."""
        n = self.n_prompts
        chosen = [int(self._rngs[row].integers(n)) for row in rows] if prompt_indices is None else prompt_indices
        for row, index in zip(rows, chosen, strict=True):
            if not isinstance(index, (int, np.integer)) or not 0 <= index < n:
                raise InvalidArgumentError(f"prompt_index {index!r} is not one of 0..{n - 1} of split {self.split!r}")
            ids = self.prompt_set.ids[index]
            self._ids[row] = self.vocabulary.pad_id
            self._ids[row, : len(ids)] = ids
            self._mask[row] = 0
            self._mask[row, : len(ids)] = 1
            self._length[row] = self._prompt_length[row] = len(ids)
            self._prompt_index[row] = index
        if self._session.scorers and len(rows):
            self._session.start([int(r) for r in rows], [self.prompt_set.ids[i] for i in chosen])

    def observe(self) -> Observation:
        """Return fresh copies of the prefixes: `input_ids` and `attention_mask`, (n, L) int64 each, right-padded."""
        return {"input_ids": self._ids.copy(), "attention_mask": self._mask.copy()}

    def step(self, actions: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> Transition:
        """Append one token to each row.

        Args:
            actions: (n,) token ids.
            rows: The rows to step, all by default; the others stay as they are and their actions are ignored.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.n_rows,) or actions.dtype.kind not in "iu":
            raise InvalidArgumentError(f"expected {self.n_rows} integer token ids, got shape {actions.shape} of {actions.dtype}")
        stepped = np.arange(self.n_rows) if rows is None else rows
        tokens = actions[stepped].astype(np.int64)
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.vocabulary.size):
            raise InvalidArgumentError(
                f"token id {tokens.min() if tokens.min() < 0 else tokens.max()} is outside 0..{self.vocabulary.size - 1}"
            )
        if (self._prompt_index[stepped] < 0).any():
            raise InvalidArgumentError("step before reset: reset the environment first")
        columns = self._length[stepped]
        self._ids[stepped, columns] = tokens
        self._mask[stepped, columns] = 1
        self._length[stepped] += 1
        self.n_steps += len(stepped)

        rewards = np.zeros(self.n_rows)
        if self._session.scorers:
            rewards[stepped] += self._session.step(stepped.tolist(), tokens.tolist())
        stopped = self._is_eos[tokens]
        if self.task.stop:
            stopped = stopped | self._says_stop(stepped)
        used_up = self._length[stepped] - self._prompt_length[stepped] >= self.max_new_tokens
        over = stopped | used_up
        terminated = np.zeros(self.n_rows, np.bool_)
        terminated[stepped[over]] = True
        if not over.any():
            return Transition(rewards, terminated, {})
        return Transition(rewards, terminated, self._finish(stepped[over], stopped[over], rewards))

    def _finish(self, rows: NDArray[np.int64], stopped: NDArray[np.bool_], rewards: NDArray[np.float64]) -> dict[int, dict[str, Any]]:
        """Score the episodes that ended in `rows`, add their rewards, and return their infos."""
        episodes = self._episodes(rows, stopped)
        self.n_scored += len(episodes)
        scores, terms = self._session.finish(rows.tolist(), episodes)
        rewards[rows] += scores
        failed = np.flatnonzero(np.isnan(scores))
        if failed.size and not self.drop_failed:
            raise RewardError(
                f"reward {self.reward.name!r} gave up episode {episodes[failed[0]].text!r:.120}: on_failure='drop' needs a learner that leaves "
                f"such episodes out; pass drop_failed=True with EpisodeRolloutBuffer or a bundled agent, or on_failure='fail'"
            )
        infos = {}
        for i, (row, episode) in enumerate(zip(rows.tolist(), episodes, strict=True)):
            infos[row] = {
                "prompt": episode.prompt,
                "continuation": episode.continuation,
                "finish_reason": episode.finish_reason,
                "reward_terms": {name: float(values[i]) for name, values in terms.items()},
            }
            if self.task.labels:
                infos[row]["label"] = right_label(self.prompt_set.prompts[self._prompt_index[row]])
        self._prompt_index[rows] = -1  # a further step without reset is an error
        return infos

    def _episodes(self, rows: NDArray[np.int64], stopped: NDArray[np.bool_]) -> list[Episode]:
        prompt_ids = [self._ids[r, : self._prompt_length[r]].tolist() for r in rows]
        continuation_ids = [self._ids[r, self._prompt_length[r] : self._length[r]].tolist() for r in rows]
        indices = self._prompt_index[rows].tolist()
        self._decode_prompts(indices)
        prompt_texts = [self._prompt_texts[index] for index in indices]
        texts = self.vocabulary.decode_continuations(prompt_ids, continuation_ids, prompt_texts)
        episodes = []
        for i, index in enumerate(indices):
            prompt = self.prompt_set.prompts[index]
            reason: FinishReason = "stop" if stopped[i] else "length"
            episodes.append(
                Episode(
                    prompt_texts[i],
                    self._cut_at_stop(texts[i]),
                    tuple(prompt_ids[i]),
                    tuple(continuation_ids[i]),
                    prompt.references,
                    reason,
                    prompt.metadata,
                )
            )
        return episodes

    def _decode_prompts(self, indices: Sequence[int]) -> None:
        """Keep the texts of these prompts as the tokenizer gives them back; once each, for a run ends episodes of the same ones many times."""
        unknown = [index for index in set(indices) if index not in self._prompt_texts]
        self._prompt_texts.update(zip(unknown, self.vocabulary.decode([self.prompt_set.ids[i] for i in unknown]), strict=True))

    def _says_stop(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows' continuations now hold a stop string, looking only at the tail that the newest token can complete."""
        window = max(len(stop.encode()) for stop in self.task.stop) + 8  # every token adds a byte; and the rest of a character before
        starts = [max(self._prompt_length[r], self._length[r] - window) for r in rows]
        tails = [self._ids[r, start : self._length[r]].tolist() for r, start in zip(rows, starts, strict=True)]
        before = [self._ids[r, start - 1 : start].tolist() for r, start in zip(rows, starts, strict=True)]  # keeps a leading space
        texts = self.vocabulary.decode_continuations(before, tails)
        return np.array([any(stop in text for stop in self.task.stop) for text in texts], np.bool_)

    def _cut_at_stop(self, text: str) -> str:
        ends = [text.find(stop) for stop in self.task.stop if stop in text]
        return text[: min(ends)] if ends else text

    def row_text(self, row: int) -> tuple[str, str]:
        """Return the prompt and the continuation so far of a row."""
        prompt = self._ids[row, : self._prompt_length[row]].tolist()
        continuation = self._ids[row, self._prompt_length[row] : self._length[row]].tolist()
        return self.vocabulary.decode([prompt])[0], self.vocabulary.decode_continuations([prompt], [continuation])[0]

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs to go on exactly here, as plain data for JSON."""
        return {
            "ids": self._ids.tolist(),
            "length": self._length.tolist(),
            "prompt_length": self._prompt_length.tolist(),
            "prompt_index": self._prompt_index.tolist(),
            "rngs": [rng.bit_generator.state for rng in self._rngs],
            "reward": self.reward.state(),
            "n_steps": self.n_steps,
            "n_scored": self.n_scored,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._ids[:] = state["ids"]
        self._length[:] = state["length"]
        self._prompt_length[:] = state["prompt_length"]
        self._prompt_index[:] = state["prompt_index"]
        self._mask[:] = np.arange(self.max_length) < self._length[:, None]
        for row, rng_state in enumerate(state["rngs"]):
            rng = np.random.Generator(np.random.PCG64())
            rng.bit_generator.state = rng_state
            self._rngs[row] = rng
        self.reward.load_state(state["reward"])
        self.n_steps, self.n_scored = state["n_steps"], state["n_scored"]
        if self._session.scorers:
            for row in range(self.n_rows):  # dense scorers see the running episodes again
                prompt = self._ids[row, : self._prompt_length[row]].tolist()
                self._session.start([row], [prompt])
                for token in self._ids[row, self._prompt_length[row] : self._length[row]].tolist():
                    self._session.step([row], [token])
