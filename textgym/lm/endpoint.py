"""Endpoint: a language model behind an OpenAI-compatible HTTP interface, asked for one text at a time."""

import asyncio
import os
import weakref
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit

from textgym.errors import EndpointError, InvalidArgumentError, MissingExtraError, RewardError, TemporaryRewardError, one_line

KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
PASSING = (408, 409, 425, 429)  # HTTP statuses that another attempt may not meet again, beside 5xx
ABOUT_THE_TEXT = (400, 413, 422)  # another text may be taken, unlike another request with a wrong key or model
SHOWN = 200  # characters of a server's own words in an error


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and whether it came to an end of its own rather than to `max_tokens`."""

    text: str
    complete: bool


class Endpoint:
    """A model served by OpenAI, vLLM, llama.cpp, Ollama, `transformers serve` or anything else that speaks their language.

    Requests are not repeated here: who asks decides about retries, time-outs and how many at a time (`textgym.rewards.serving`). The object
    may be pickled, copied and used after a fork; connections stay behind.

    Args:
        base_url: Up to and including the version, "http://127.0.0.1:8000/v1".
        model: Name of the model there.
        api_key: None for the environment variable OPENAI_API_KEY, "$NAME" for the variable NAME, "none" for a server that wants none, or the
            key itself. It is shown in no error, log or identity.
        timeout: Seconds that a connection may be silent.
        extra_body: Further fields of every request, for what a server offers beyond the standard.

    Raises:
        InvalidArgumentError: An argument cannot be used, or the variable of the key is not set.
        MissingExtraError: The package `openai` is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(base_url if isinstance(base_url, str) else "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgumentError(f'base_url must be an address such as "http://127.0.0.1:8000/v1", got {base_url!r}')
        if parts.username or parts.password:
            raise InvalidArgumentError(
                "base_url must not hold a user name or password: it is logged; give the key by its environment variable"
            )
        if not isinstance(model, str) or not model:
            raise InvalidArgumentError(f"model must be the name of a model that {base_url} serves, got {model!r}")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise MissingExtraError("an OpenAI-compatible endpoint", "judge") from None
        self.base_url, self.model, self.timeout = base_url.rstrip("/"), model, timeout
        self.extra_body = dict(extra_body or {})
        self._api_key = find_api_key(api_key)
        self._client: tuple[asyncio.AbstractEventLoop, Any] | None = None

    async def chat(self, messages: Sequence[tuple[str, str]], temperature: float, max_tokens: int, seed: int | None = None) -> Answer:
        """Return the assistant's answer to messages given as (role, text).

        Raises:
            TemporaryRewardError: Busy, unreachable, timed out or unreadable; carries the server's Retry-After.
            RewardError: This text is refused (too long, ...).
            EndpointError: Everything will be refused (wrong key, unknown model, ...).
        """
        wording = [{"role": role, "content": encodable(text)} for role, text in messages]
        found = await self._request("chat", temperature, max_tokens, seed, messages=wording)
        return self._answer(found, lambda choice: choice.message.content)

    async def complete(self, prompt: str, temperature: float, max_tokens: int, seed: int | None = None) -> Answer:
        """Return the text that the model continues `prompt` with; raises as `chat` does."""
        found = await self._request("completion", temperature, max_tokens, seed, prompt=encodable(prompt))
        return self._answer(found, lambda choice: choice.text)

    async def _request(self, kind: str, temperature: float, max_tokens: int, seed: int | None, **what: Any) -> Any:
        import openai

        client = self._connected()
        create = client.chat.completions.create if kind == "chat" else client.completions.create
        fields = {"temperature": temperature, "max_tokens": max_tokens, **({} if seed is None else {"seed": seed}), **what}
        call: Awaitable[Any] = create(model=self.model, extra_body=self.extra_body or None, **fields)
        try:
            return await call
        except openai.APITimeoutError:
            raise TemporaryRewardError(f"{self} gave no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise TemporaryRewardError(f"the connection to {self} failed: {self._shown(one_line(error.__cause__ or error))}") from None
        except openai.APIStatusError as error:
            said = f"{self} answered {error.status_code}: {self._shown(error.response.text)}"
            if error.status_code in PASSING or error.status_code >= 500:
                raise TemporaryRewardError(said, retry_after(error.response.headers)) from None
            raise (RewardError if error.status_code in ABOUT_THE_TEXT else EndpointError)(said) from None
        except ValueError as error:  # the client lets the errors of reading JSON through
            read = str(getattr(error, "doc", "")) or one_line(error)
            raise TemporaryRewardError(f"{self} gave an unreadable answer: {self._shown(read)}") from None
        except openai.OpenAIError as error:
            raise TemporaryRewardError(f"{self} gave an unreadable answer: {self._shown(one_line(error))}") from None

    def _answer(self, found: Any, text_of: Any) -> Answer:
        try:  # the client does not check what it reads; an answer that is no JSON comes back as bare text
            choice = found.choices[0]
            text, complete = text_of(choice), choice.finish_reason != "length"
        except (AttributeError, IndexError, TypeError):
            text, complete = None, True
        if not isinstance(text, str):
            shown = found if isinstance(found, str) else getattr(found, "model_dump_json", lambda: repr(found))()
            raise TemporaryRewardError(f"{self} gave an unreadable answer: {self._shown(shown)}")
        return Answer(text, complete)

    def _connected(self) -> Any:
        """Return the client of the running event loop; its connections belong to that loop, and a forked child has another."""
        from openai import AsyncOpenAI

        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            client = AsyncOpenAI(base_url=self.base_url, api_key=self._api_key, timeout=self.timeout, max_retries=0)
            self._client = (loop, client)
            weakref.finalize(self, _close, client, loop, os.getpid())
        return self._client[1]

    def _shown(self, words: str) -> str:
        """Return a server's words on one line, cut, and without the key: some servers repeat it."""
        line = " ".join(words.split()) or "nothing"
        if self._api_key != NO_KEY:
            line = line.replace(self._api_key, "***")
        return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."

    def __str__(self) -> str:
        return f"model {self.model!r} at {self.base_url}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}


def _close(client: Any, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    """Close a client's connections in the loop they belong to; a forked child leaves its parent's alone."""
    if pid == os.getpid() and loop.is_running():
        asyncio.run_coroutine_threadsafe(client.close(), loop)


def find_api_key(api_key: str | None) -> str:
    """Return the key meant by an `api_key` argument, "none" for none; raises naming the environment variable that is not set."""
    if api_key == NO_KEY:
        return NO_KEY
    if api_key is not None and not isinstance(api_key, str):
        raise InvalidArgumentError(f"api_key must be a text, got a {type(api_key).__name__}")
    if api_key is not None and not names_api_key(api_key):
        return api_key
    variable = api_key.removeprefix("$") if api_key else KEY_VARIABLE
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InvalidArgumentError(
            f'set the environment variable {variable} to the key of the server, or pass api_key="none" if it wants none'
        )
    return key


def names_api_key(api_key: Any) -> bool:
    """Return whether an `api_key` argument says where a key is found, and may be stored and shown, rather than being one."""
    return not api_key or (isinstance(api_key, str) and (api_key == NO_KEY or api_key.startswith("$")))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer's Retry-After asks to wait, given as a number or a date; None without a readable one."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: a broken decoding may leave lone surrogates, which become question marks."""
    return text.encode("utf-8", "replace").decode()
