"""Augmentation: further training judgements made from those there are; validation and test are never touched."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet, LabelledText, PreferencePair, RatedText

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textgym.policies.reference import ReferenceModel
    from textgym.tokenization import Vocabulary

WORD = re.compile(r"\S+")
SPACED_WORD = re.compile(r"\s*\S+")
ROWS = 128  # texts the language model reads side by side


def with_dropped_words(judgements: JudgementSet[Any], share: float = 0.1, copies: int = 1, seed: int = 0) -> JudgementSet[Any]:
    """Return the judgements with copies of the training ones in which words are missing (token dropout); the judgement stays.

    Args:
        judgements: Of any kind, splits drawn; of a pair both continuations lose words.
        share: Of the words, each dropped independently; at least one word stays. In (0, 1).
        copies: Per judgement. Those that came out as the text itself are left out.
        seed: Of the choice of words.
    """
    if not 0 < share < 1:
        raise InvalidArgumentError(f"share must be between 0 and 1, got {share}")
    training = _training(judgements, copies)
    rng = np.random.default_rng(seed)

    def dropped(text: str) -> str:
        words = SPACED_WORD.findall(text)  # what precedes the first that stays is what parts the text from its prompt
        kept = [word for word, number in zip(words, rng.random(len(words)), strict=True) if number >= share]
        return text[: len(text) - len(text.lstrip())] + "".join(kept).lstrip() + text[len(text.rstrip()) :] if kept else text

    new = []
    for item in training:
        for n in range(1, copies + 1):
            if isinstance(item, PreferencePair):
                texts = {"chosen": dropped(item.chosen), "rejected": dropped(item.rejected)}
                if (texts["chosen"], texts["rejected"]) == (item.chosen, item.rejected) or texts["chosen"] == texts["rejected"]:
                    continue
            else:
                texts = {"text": dropped(item.text)}
                if texts["text"] == item.text:
                    continue
            new.append(_derived(item, "dropped", n, **texts))
    return replace(judgements, items=(*judgements.items, *new))


def with_mixed_texts(judgements: JudgementSet[Any], n: int, seed: int = 0) -> JudgementSet[Any]:
    """Return the judgements with `n` joined from two training ones each: text after text, the rating (and each aspect) the mean of both.

    Joined are continuations of the same prompt; of labels, those of the same class. Fewer are added where fewer can be made.

    Args:
        judgements: Ratings, labels or expert texts, splits drawn.
        n: How many to add.
        seed: Of the choice of texts.
    """
    if judgements.kind == "pairs":
        raise InvalidArgumentError("pairs cannot be mixed; mix ratings, labels or texts")
    buckets: dict[tuple[str, str], list[Any]] = {}
    for item in _training(judgements, n):
        buckets.setdefault((item.prompt, item.label if isinstance(item, LabelledText) else ""), []).append(item)
    several = [items for items in buckets.values() if len(items) > 1]
    possible = sum(len(items) * (len(items) - 1) for items in several)
    share = np.array([len(items) for items in several], float)
    rng = np.random.default_rng(seed)
    new: dict[str, Any] = {}
    while len(new) < min(n, possible // 2):  # an ordered pair may come up twice; half of them are found quickly
        items = several[rng.choice(len(several), p=share / share.sum())]
        i, j = rng.choice(len(items), 2, replace=False)
        first, second = items[i], items[j]
        id_ = f"{first.id}+{second.id}"
        if id_ in new:
            share = share if len(several) == 1 else share * 0.999 + 0.001 * share.mean()
            continue
        changed: dict[str, Any] = {"text": f"{first.text} {second.text.lstrip()}", "source": first.source}
        if first.source != second.source:
            changed["source"] = ""
        if isinstance(first, RatedText):
            shared = [name for name in first.aspects if name in second.aspects]
            aspects = {name: (first.aspects[name] + second.aspects[name]) / 2 for name in shared}
            changed |= {"rating": first.rating / 2 + second.rating / 2, "ratings": (), "raters": (), "aspects": aspects}
        new[id_] = replace(_derived(first, "mixed", 1, **changed), id=id_, metadata={"augmented": "mixed", "from": [first.id, second.id]})
    return replace(judgements, items=(*judgements.items, *new.values()))


@dataclass(frozen=True)
class Paraphraser:
    """Rewrites a span of a text with a language model: masks some words, lets the model write others, keeps what reads as well.

    For each text, `n_candidates` continuations of what stands before the span are drawn, and the best candidate is the one that makes
    the whole text most probable, what follows the span included. If it is more than `slack` nats per token less probable than the
    original, or `judge` rates it differently, the paraphrase backs off to a span half as long, and at last to none.

    Of 160 training sentences of the bundled ratings 154 found a paraphrase (0.27 s each on one core); their "human-rating" moved by
    0.53 on average. With that reward as `judge` 147 did, moving by 0.21. So give a judge where you can.

    Attributes:
        model: Name, directory, `.gguf` file or hub id of the language model.
        max_words: Of the span tried first; never more than half the text's words.
        n_candidates: Per span.
        slack: Nats per token.
        judge: Texts → scores, such as a reward; without it a rewritten span may well change what a text says of a film.
        max_shift: Largest difference to the original's score.
        device: Where the model runs.
    """

    model: str = "reviews"
    max_words: int = 4
    n_candidates: int = 8
    slack: float = 0.2
    judge: Callable[[Sequence[str]], Sequence[float]] | None = None
    max_shift: float = 0.5
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the options."""
        if self.max_words < 1 or self.n_candidates < 1:
            raise InvalidArgumentError(f"max_words and n_candidates must be at least 1, got {self.max_words} and {self.n_candidates}")
        if not self.slack >= 0 or not self.max_shift >= 0:
            raise InvalidArgumentError(f"slack and max_shift must be at least 0, got {self.slack} and {self.max_shift}")

    def rewrite(self, prompts: Sequence[str], texts: Sequence[str], rng: np.random.Generator) -> list[str | None]:
        """Return a paraphrase of each text, which continues its prompt; None where none was good enough."""
        from textgym.policies.reference import ReferenceModel
        from textgym.tokenization import load_vocabulary

        vocabulary, lm = load_vocabulary(self.model), ReferenceModel(self.model, self.device)
        found: list[str | None] = [None] * len(texts)
        per_pass = max(1, ROWS // self.n_candidates)
        for start in range(0, len(texts), per_pass):
            places = list(range(start, min(len(texts), start + per_pass)))
            limits = {place: min(self.max_words, len(texts[place].split()) // 2) for place in places}
            original = dict(zip(places, self._log_probs(vocabulary, lm, [prompts[p] + texts[p] for p in places]), strict=True))
            while open_ := [place for place in places if found[place] is None and limits[place] > 0]:
                spans = {place: self._span(texts[place], limits[place], rng) for place in open_}
                candidates = self._candidates(vocabulary, lm, prompts, texts, spans, rng)
                self._choose(vocabulary, lm, prompts, texts, candidates, original, found)
                for place in open_:
                    limits[place] //= 2
        return found

    def _span(self, text: str, n_words: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """Return where a span begins and ends, in characters, and its number of words."""
        words = list(WORD.finditer(text))
        first = int(rng.integers(0, len(words) - n_words + 1))
        return words[first].start(), words[first + n_words - 1].end(), n_words

    def _candidates(
        self,
        vocabulary: "Vocabulary",
        lm: "ReferenceModel",
        prompts: Sequence[str],
        texts: Sequence[str],
        spans: dict[int, tuple[int, int, int]],
        rng: np.random.Generator,
    ) -> list[tuple[int, str]]:
        """Return rewritten texts with the place of the original."""
        owners = [place for place in spans for _ in range(self.n_candidates)]
        before = [(prompts[place] + texts[place][: spans[place][0]]).rstrip() for place in owners]
        limit = max(n for _, _, n in spans.values()) * 2 + 2  # tokens, enough for the words and the beginning of the next
        prefixes = [ids[-(vocabulary.context_length - limit) :] for ids in vocabulary.encode(before)]
        fills = vocabulary.decode_continuations(prefixes, _continue(vocabulary, lm, prefixes, limit, rng).tolist())
        found = []
        for place, fill in zip(owners, fills, strict=True):
            start, end, n_words = spans[place]
            words = fill.split()
            text = texts[place][:start] + " ".join(words[:n_words]) + texts[place][end:]
            if len(words) > n_words and text != texts[place]:  # the last word may be cut short
                found.append((place, text))
        return list(dict.fromkeys(found))

    def _choose(
        self,
        vocabulary: "Vocabulary",
        lm: "ReferenceModel",
        prompts: Sequence[str],
        texts: Sequence[str],
        candidates: list[tuple[int, str]],
        original: dict[int, float],
        found: list[str | None],
    ) -> None:
        """Put the most probable acceptable candidate of each text into `found`."""
        if not candidates:
            return
        values = self._log_probs(vocabulary, lm, [prompts[place] + text for place, text in candidates])
        shifts = [0.0] * len(candidates)
        if self.judge is not None:
            new = self.judge([prompts[place] + text for place, text in candidates])
            old = self.judge([prompts[place] + texts[place] for place, _ in candidates])
            shifts = [abs(float(a) - float(b)) for a, b in zip(new, old, strict=True)]
        best: dict[int, float] = {}
        for (place, text), value, shift in zip(candidates, values, shifts, strict=True):
            if value >= original[place] - self.slack and shift <= self.max_shift and value > best.get(place, -math.inf):
                best[place], found[place] = value, text

    def _log_probs(self, vocabulary: "Vocabulary", lm: "ReferenceModel", texts: Sequence[str]) -> list[float]:
        """Return each text's mean log-probability per token, in nats."""
        from textgym.lm.token_distribution import SamplingRule

        eos = min(vocabulary.eos_ids)
        ids = [np.array([*tokens, eos][: vocabulary.context_length], np.int64) for tokens in vocabulary.encode(texts)]
        flat = lm.log_probs([(tokens[:1], tokens[1:]) for tokens in ids], SamplingRule(), None)
        ends = np.cumsum([len(tokens) - 1 for tokens in ids])
        return [float(part.mean()) for part in np.split(flat, ends[:-1])]


def with_paraphrases(
    judgements: JudgementSet[Any], paraphraser: Paraphraser | None = None, share: float = 1.0, seed: int = 0
) -> JudgementSet[Any]:
    """Return the judgements with paraphrases of training ones, each with its original's judgement.

    Args:
        judgements: Ratings, labels or expert texts, splits drawn.
        paraphraser: By default with the bundled language model.
        share: Of the training judgements to try, in (0, 1].
        seed: Of the choice of judgements, spans and words.
    """
    if judgements.kind == "pairs":
        raise InvalidArgumentError("pairs cannot be paraphrased; paraphrase ratings before converting them")
    if not 0 < share <= 1:
        raise InvalidArgumentError(f"share must be above 0 and at most 1, got {share}")
    training = _training(judgements, 1)
    rng = np.random.default_rng(seed)
    chosen = [training[i] for i in np.sort(rng.permutation(len(training))[: math.ceil(share * len(training))])]
    texts = (paraphraser or Paraphraser()).rewrite([item.prompt for item in chosen], [item.text for item in chosen], rng)
    new = [_derived(item, "paraphrased", 1, text=text) for item, text in zip(chosen, texts, strict=True) if text is not None]
    return replace(judgements, items=(*judgements.items, *new))


def _continue(
    vocabulary: "Vocabulary", lm: "ReferenceModel", prefixes: list[list[int]], n_tokens: int, rng: np.random.Generator
) -> "NDArray[np.int64]":
    """Return `n_tokens` drawn tokens after each prefix, (rows, n_tokens); no text ends early."""
    import torch

    from textgym.lm.token_distribution import SamplingRule, sample

    lengths = torch.tensor([len(ids) for ids in prefixes], device=lm.device)
    ids = torch.zeros(len(prefixes), int(lengths.max()) + n_tokens, dtype=torch.long, device=lm.device)
    for row, prefix in enumerate(prefixes):
        ids[row, : len(prefix)] = torch.tensor(prefix)
    allowed = torch.from_numpy(vocabulary.allowed_mask.copy()).to(lm.device)
    allowed[list(vocabulary.eos_ids)] = False
    rows = torch.arange(len(prefixes), device=lm.device)
    uniform = torch.from_numpy(rng.random((n_tokens, len(prefixes)), dtype=np.float32)).to(lm.device)
    drawn = []
    with torch.no_grad():
        for step in range(n_tokens):
            logits = lm.lm.logits(lm.lm.last_hidden(ids, lengths + step))
            drawn.append(sample(SamplingRule().apply(logits, allowed), uniform[step]))
            ids[rows, lengths + step] = drawn[-1]
    stacked: NDArray[np.int64] = torch.stack(drawn, 1).cpu().numpy()
    return stacked


def _training(judgements: JudgementSet[Any], count: int) -> tuple[RatedText | LabelledText | PreferencePair | ExpertText, ...]:
    if count < 1:
        raise InvalidArgumentError(f"the number of additions must be at least 1, got {count}")
    training: tuple[Any, ...] = judgements.split("train").items
    if not training:
        raise InvalidArgumentError("no judgement is in the split train, and only training judgements are augmented; draw splits first")
    return training


def _derived(item: Any, how: str, n: int, **changed: Any) -> Any:
    """Return a judgement made from another one, in its group."""
    metadata = {**item.metadata, "augmented": how, "from": item.id}
    return replace(item, id=f"{item.id}~{how}{n}", group=item.group or item.id, metadata=metadata, **changed)
