"""LLMTextSource: a served language model as a writer of texts - references, experts, or the opponent of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from textgym.episode import Episode
from textgym.errors import EndpointError, InvalidArgumentError
from textgym.lm.endpoint import Endpoint
from textgym.rewards.serving import Failure, Serving, serve

Interface = Literal["chat", "completion"]
INSTRUCTION = (
    "Continue the text that the user gives you. Answer with the continuation alone: do not repeat the text, and add no quotation marks, title "
    "or remark. Write at most {max_words} words."
)
WORDS_PER_TOKEN = 0.75  # of English; what the instruction says, while max_tokens is what the server keeps to
CLOSING = ".,;:!?)]}'’…%"  # a text that goes on with one of these follows without a space


class LLMTextSource:
    """Continues prompts by asking an OpenAI-compatible endpoint.

    Args:
        base_url, model, api_key, extra_body: Of the endpoint, see `textgym.lm.endpoint.Endpoint`.
        interface: "chat" tells a chat model to continue the text; "completion" lets a base model do so.
        instruction: Of the chat model; "{max_words}" is filled in.
        temperature: Of the sampling.
        workers, timeout, retries, backoff: See `textgym.rewards.serving.Serving`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        interface: Interface = "chat",
        instruction: str = INSTRUCTION,
        temperature: float = 1.0,
        workers: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if interface not in get_args(Interface):
            raise InvalidArgumentError(f"interface must be one of {', '.join(get_args(Interface))}, got {interface!r}")
        if not temperature >= 0:
            raise InvalidArgumentError(f"temperature must be at least 0, got {temperature!r}")
        self.serving = Serving(workers, 1, timeout, retries, backoff)
        self.endpoint = Endpoint(base_url, model, api_key, timeout, extra_body)
        self.interface, self.instruction, self.temperature = interface, instruction, temperature

    def generate(
        self,
        prompts: Sequence[str],
        max_tokens: int = 48,
        max_words: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
    ) -> list[str]:
        """Return a continuation of each prompt, in order; a chat model's begins with a space where one belongs.

        Args:
            prompts: Texts to continue.
            max_tokens: Budget of a continuation in the served model's tokens, kept by the server.
            max_words: What the chat model is told; three quarters of `max_tokens` by default.
            seed: Text i is sampled with seed + i, where the server honours seeds; None leaves it to the server.
            temperature: Other than the source's own.

        Raises:
            EndpointError: A prompt got no answer, after all retries; names the server and the prompt.
        """
        if isinstance(prompts, str):
            raise InvalidArgumentError(f"prompts must be a list of texts, got the single text {prompts!r}: pass [{prompts!r}]")
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise InvalidArgumentError(f"max_tokens must be an integer of at least 1, got {max_tokens!r}")
        words = max_words or max(1, int(max_tokens * WORDS_PER_TOKEN))
        system = self.instruction.replace("{max_words}", str(words))
        heat = self.temperature if temperature is None else temperature

        async def write(given: Sequence[Episode]) -> str:
            (one,) = given
            own_seed = None if seed is None else seed + one.metadata["place"]
            if self.interface == "completion":
                return (await self.endpoint.complete(one.prompt, heat, max_tokens, own_seed)).text
            answer = await self.endpoint.chat([("system", system), ("user", one.prompt)], heat, max_tokens, own_seed)
            return as_continuation(one.prompt, answer.text)

        wanted = [Episode(prompt, metadata={"place": i}) for i, prompt in enumerate(prompts)]
        texts: list[str] = []
        results: list[tuple[Sequence[Episode], str | Failure]] = serve(write, wanted, self.serving, lambda text, _: str(text))
        for (one,), result in results:
            if isinstance(result, Failure):
                raise EndpointError(f"no text for the prompt {one.prompt!r:.100}: {result}")
            texts.append(result)
        return texts


def as_continuation(prompt: str, answer: str) -> str:
    """Return what a chat model's answer adds to the prompt: without a repeated prompt, and with the space between them."""
    repeated = prompt.strip()
    text = answer.strip()
    if repeated and text.startswith(repeated):
        text = text[len(repeated) :].lstrip()
    if not text or not prompt or prompt[-1].isspace() or text[0] in CLOSING:
        return text
    return f" {text}"
