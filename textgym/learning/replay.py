"""Replay: texts kept as slices of one token stream, for agents that learn from what was written before."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.policies.generation import GeneratedText


class TokenReplay:
    """The newest texts that fit into a number of tokens, prompts included; a prefix is a slice, so a token costs the same at any horizon.

    A buffer of (observation, action, next observation), as stable-baselines3's, holds every prefix twice: O(T²) for a text of T tokens.

    Args:
        capacity: Tokens kept, prompts included; the oldest texts make room for new ones.
        group_size: Texts that are added, drawn and dropped together, such as the two of a pair.
        longest: Tokens that a text may have; a capacity below that of a group of these is refused at once.
    """

    def __init__(self, capacity: int, group_size: int = 1, longest: int = 1) -> None:
        if capacity < group_size * longest:
            raise InvalidArgumentError(
                f"replay_size must be at least {group_size * longest} tokens, for {group_size} of the longest texts, got {capacity}"
            )
        self.capacity, self.group_size = capacity, group_size
        self._ids = np.zeros(capacity, np.int64)
        self._rewards = np.zeros(capacity, np.float64)
        self._log_probs = np.zeros(capacity, np.float32)
        self._places: deque[tuple[int, int, int]] = deque()  # (start, prompt tokens, all tokens), oldest first
        self._head = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def n_tokens(self) -> int:
        """Tokens held now, prompts included."""
        return sum(n for _, _, n in self._places)

    @property
    def n_bytes(self) -> int:
        """Bytes of the token stream; it is allocated once."""
        return self._ids.nbytes + self._rewards.nbytes + self._log_probs.nbytes

    def add(self, texts: Sequence[GeneratedText], rewards: Sequence[NDArray[np.float64]] | None = None) -> None:
        """Keep texts, with other numbers than their rewards if given; groups with a number that is not finite (given up) are left out."""
        numbers = [t.rewards for t in texts] if rewards is None else rewards
        for first in range(0, len(texts), self.group_size):
            group = slice(first, first + self.group_size)
            if all(np.isfinite(n).all() for n in numbers[group]):
                self._make_room(sum(len(t.prompt_ids) + len(t.action_ids) for t in texts[group]))
                for text, kept in zip(texts[group], numbers[group], strict=True):
                    self._add(text, kept)

    def _make_room(self, needed: int) -> None:
        """Drop the oldest groups, so that so many tokens fit behind the head in one piece."""
        if needed > self.capacity:
            what = "a text" if self.group_size == 1 else f"a group of {self.group_size} texts"
            raise InvalidArgumentError(f"{what} of {needed} tokens does not fit into a replay of {self.capacity}: raise its capacity")
        if self._head + needed > self.capacity:  # begin at the front again
            while self._places and self._places[0][0] >= self._head:
                self._places.popleft()
            self._head = 0
        while self._places and self._head <= self._places[0][0] < self._head + needed:
            self._places.popleft()
        while len(self._places) % self.group_size:
            self._places.popleft()

    def _add(self, text: GeneratedText, rewards: NDArray[np.float64]) -> None:
        n_prompt, needed = len(text.prompt_ids), len(text.prompt_ids) + len(text.action_ids)
        chosen, stop = self._head + n_prompt, self._head + needed
        self._ids[self._head : chosen], self._ids[chosen:stop] = text.prompt_ids, text.action_ids
        self._rewards[chosen:stop], self._log_probs[chosen:stop] = rewards, text.log_probs
        self._places.append((self._head, n_prompt, needed))
        self._head = stop

    def text(self, index: int) -> GeneratedText:
        """Return a text, 0 the oldest, as views of the stream: valid until the next `add`."""
        start, n_prompt, n = self._places[index]
        chosen, stop = start + n_prompt, start + n
        return GeneratedText(self._ids[start:chosen], self._ids[chosen:stop], self._log_probs[chosen:stop], self._rewards[chosen:stop], {})

    def sample(self, n_groups: int, rng: np.random.Generator) -> list[GeneratedText]:
        """Draw whole texts, group by group, with replacement: one transformer pass over each gives the values at all of its prefixes."""
        if not self._places:
            raise InvalidArgumentError("nothing can be drawn from an empty replay")
        size = self.group_size
        return [self.text(int(i) * size + k) for i in rng.integers(len(self._places) // size, size=n_groups) for k in range(size)]

    # --- exact resume --------------------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything held, for `Agent.arrays`."""
        return {
            "replay_ids": self._ids,
            "replay_rewards": self._rewards,
            "replay_log_probs": self._log_probs,
            "replay_places": np.array(self._places, np.int64).reshape(-1, 3),
            "replay_head": np.array([self._head], np.int64),
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `arrays` returned."""
        self._ids[:], self._rewards[:], self._log_probs[:] = (arrays[f"replay_{name}"] for name in ("ids", "rewards", "log_probs"))
        self._places = deque((int(a), int(b), int(c)) for a, b, c in arrays["replay_places"])
        self._head = int(arrays["replay_head"][0])
