"""Vocabulary: a model's tokenizer with the rules of ids - how many, which may be chosen, which end a text - and of decoding."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
from textgym.lm.source import base_of, is_adapter_folder, resolve_model


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The token ids of one language model.

    Attributes:
        model: The model's name as the user gave it.
        tokenizer: Its Hugging Face tokenizer.
        size: Number of actions: rows of the model's output layer, which may exceed the tokenizer's length.
        eos_ids: Ids that end a text.
        pad_id: Id that fills the right of an observation.
        allowed_mask: (size,) bool, True where the id may be chosen: not beyond the tokenizer, not a special token other than EOS, not
            in the model's `suppress_tokens`.
        context_length: Longest prefix the model can read, in tokens.
    """

    model: str
    tokenizer: Any
    size: int
    eos_ids: frozenset[int]
    pad_id: int
    allowed_mask: NDArray[np.bool_]
    context_length: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens added as the tokenizer does; never an empty list."""
        if not texts:
            return []
        if self.tokenizer.is_fast:  # its own call costs several times the encoding
            fast = self.tokenizer.backend_tokenizer
            fast.no_truncation()  # a tokenizer file may ask for both
            fast.no_padding()
            encoded: list[list[int]] = [found.ids for found in fast.encode_batch_fast(list(texts))]
        else:
            encoded = self.tokenizer(list(texts), verbose=False)["input_ids"]  # no warning about length: callers cut
        first = self.tokenizer.bos_token_id
        start = [first if first is not None else min(self.eos_ids)]
        return [ids or start for ids in encoded]

    def token_ids(self, tokens: Sequence[str], asker: str = "somebody asks for") -> list[int]:
        """Return the ids of single tokens, each as the vocabulary writes it ("Ġgood") or as its text (" good").

        Raises:
            InvalidArgumentError: There is no such single token; the line begins with the `asker`.
        """
        ids = []
        for token in tokens:
            found = self.tokenizer.convert_tokens_to_ids(token)
            if found is None or found == self.tokenizer.unk_token_id:
                pieces = self.tokenizer.encode(token, add_special_tokens=False)
                if len(pieces) != 1 or pieces[0] == self.tokenizer.unk_token_id:
                    raise InvalidArgumentError(f"{asker} the token {token!r}, which model {self.model!r} does not have")
                (found,) = pieces
            ids.append(int(found))
        return ids

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each id sequence, special tokens left out."""
        if not sequences:
            return []
        if self.tokenizer.is_fast:
            texts: list[str] = self.tokenizer.backend_tokenizer.decode_batch(sequences, skip_special_tokens=True)
            return texts
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in sequences]

    def decode_continuations(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], prompt_texts: Sequence[str] | None = None
    ) -> list[str]:
        """Return the text each continuation adds to its prompt.

        Decoding the continuation alone would lose its leading space with some tokenizers (SentencePiece), so the whole is decoded and
        the prompt's text cut off.

        Args:
            prompts, continuations: Token ids.
            prompt_texts: What `decode(prompts)` gives, if it is known already.
        """
        wholes = self.decode([[*p, *c] for p, c in zip(prompts, continuations, strict=True)])
        starts = self.decode(prompts) if prompt_texts is None else prompt_texts
        # A prompt that ends inside a character (byte-level tokens) decodes differently alone; then the continuation speaks for itself.
        return [
            whole[len(start) :] if whole.startswith(start) else self.decode([continuation])[0]
            for whole, start, continuation in zip(wholes, starts, continuations, strict=True)
        ]


def load_vocabulary(model: str | os.PathLike[str]) -> Vocabulary:
    """Return the vocabulary of a model given by name, directory, `.gguf` file or hub id, without loading its weights."""
    return _load_vocabulary(os.fspath(model), resolve_model(model))


@lru_cache(maxsize=8)
def _load_vocabulary(name: str, path: str) -> Vocabulary:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    whole = resolve_model(base_of(path)) if is_adapter_folder(path) else path
    try:
        config: Any = AutoConfig.from_pretrained(whole).get_text_config()
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgumentError(f"model {name!r} has no readable configuration or tokenizer: {' '.join(str(error).split())}") from error
    try:
        generation: Any = GenerationConfig.from_pretrained(whole)
    except OSError:
        generation = GenerationConfig()  # type: ignore[no-untyped-call]
    ends = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    eos = generation.eos_token_id
    ends += eos if isinstance(eos, list) else [eos] if eos is not None else []
    if not ends:
        raise InvalidArgumentError(f"model {name!r} has no end-of-text token; set eos_token in its tokenizer")
    size = int(config.vocab_size)
    if len(tokenizer) > size:
        raise InvalidArgumentError(f"model {name!r} has {size} output rows but its tokenizer has {len(tokenizer)} tokens; resize the model")
    allowed = np.zeros(size, np.bool_)
    allowed[: len(tokenizer)] = True
    allowed[[i for i in tokenizer.all_special_ids if i not in ends]] = False
    allowed[list(generation.suppress_tokens or [])] = False
    allowed[ends] = True
    allowed.setflags(write=False)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    context = int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or tokenizer.model_max_length)
    return Vocabulary(name, tokenizer, size, frozenset(ends), int(pad), allowed, context)
