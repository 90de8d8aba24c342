"""The reward "llm-judge": a served language model grades each text by a rubric."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import textgym
from textgym.lm.endpoint import Endpoint
from textgym.rewards.cache import ScoreCache
from textgym.rewards.serving import OnFailure, Serving
from textgym_plugins.llm_judge_dialogue import messages, read_score

RUBRIC = "How well the continuation follows from the prompt: a fluent, coherent, sensible piece of writing that says something."


class LLMJudge:
    """The grade that a language model behind an OpenAI-compatible endpoint gives a text; `low` .. `high`.

    The judge sees rubric, prompt and continuation, and must answer with {"score": NUMBER} alone. Whatever else it says - prose, a number out
    of range, NaN - is a failed attempt; after the last one the text fails or is dropped, and no score is made up. The text stands between
    marks that it cannot forge, and the judge is told that it is data. A judge can still be talked into a grade: never trust one that is
    trained against without an independent score beside it.

    Args:
        base_url, model, api_key, extra_body: Of the endpoint, see `textgym.lm.endpoint.Endpoint`.
        rubric: What is good: a text, or a path that ends in .txt or .md.
        low, high: The scale, from worst to best.
        temperature: Above 0 equal texts may get different grades. At 0 the reward is declared deterministic, which servers keep to mostly,
            not always: `textgym reward check` tells about yours.
        max_tokens: Of an answer.
        workers, timeout, retries, backoff, on_failure: See `textgym.rewards.serving.Serving`.
        cache: SQLite file in which grades are kept, each as soon as it arrives; needs temperature 0.

    Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", arXiv:2306.05685.
    """

    version = "1"
    min_texts_per_second = 0.1

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        rubric: str | os.PathLike[str] = RUBRIC,
        low: float = 0.0,
        high: float = 10.0,
        temperature: float = 0.0,
        max_tokens: int = 32,
        workers: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        on_failure: OnFailure = "fail",
        cache: str | os.PathLike[str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if not float("-inf") < low < high < float("inf"):
            raise textgym.InvalidArgumentError(f"llm-judge: low and high must be numbers, low the smaller, got {low!r} and {high!r}")
        if not temperature >= 0:
            raise textgym.InvalidArgumentError(f"llm-judge: temperature must be at least 0, got {temperature!r}")
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise textgym.InvalidArgumentError(f"llm-judge: max_tokens must be an integer of at least 1, got {max_tokens!r}")
        if cache is not None and temperature > 0:
            raise textgym.InvalidArgumentError(
                f"llm-judge: a cache would freeze the chance of temperature {temperature!r}; use temperature=0"
            )
        self.serving = Serving(workers, 1, timeout, retries, backoff, on_failure)
        self.endpoint = Endpoint(base_url, model, api_key, timeout, extra_body)
        self.rubric, self.low, self.high = read_rubric(rubric), float(low), float(high)
        self.temperature, self.max_tokens = temperature, max_tokens
        self.deterministic = temperature == 0
        self.cache = None if cache is None else ScoreCache(cache)

    async def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
        """Return the grades, (n,), in low..high."""
        return [await self._grade(episode) for episode in episodes]

    async def _grade(self, episode: textgym.Episode) -> float:
        asked = messages(episode.prompt, episode.continuation, self.rubric, self.low, self.high)
        key = hashlib.sha256(json.dumps([self.identity(), asked]).encode()).hexdigest()
        if self.cache is not None and (known := self.cache.get([key])):
            return known[key]
        answer = await self.endpoint.chat(asked, self.temperature, self.max_tokens)
        score = read_score(answer, self.low, self.high)
        if self.cache is not None:
            self.cache.put({key: score})
        return score

    def identity(self) -> str:
        """Return what the grades depend on beside the texts; the key is no part of it."""
        parts = {
            "version": self.version,
            "base_url": self.endpoint.base_url,
            "model": self.endpoint.model,
            "rubric": self.rubric,
            "scale": [self.low, self.high],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "extra_body": self.endpoint.extra_body,
        }
        return f"llm-judge {json.dumps(parts, sort_keys=True, default=repr)}"


def read_rubric(rubric: str | os.PathLike[str]) -> str:
    """Return the rubric's text: that of the file if it is a path or ends like one."""
    text = os.fspath(rubric)
    if not isinstance(rubric, str) or text.endswith((".txt", ".md")):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise textgym.InvalidArgumentError(f"llm-judge: cannot read the rubric {os.fspath(rubric)!r}: {error}") from None
    if not text.strip():
        raise textgym.InvalidArgumentError(f"llm-judge: the rubric is empty: {os.fspath(rubric)!r}")
    return text.strip()


@textgym.hookimpl
def register_rewards(register: Any) -> None:
    """Register "llm-judge"."""
    register("llm-judge", LLMJudge)
