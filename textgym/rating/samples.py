"""Samples: the items of a collection, written by agents or read from files of texts."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.rating.collection import Collection, Item
from textgym.reward_modeling.data.judgements import JudgementError
from textgym.reward_modeling.data.reading import read_judgements
from textgym.reward_modeling.data.schema import placed
from textgym.reward_modeling.data.text_rows import DELIMITERS, json_rows


@dataclass(frozen=True)
class _Sample:
    prompt: str
    text: str
    source: str


def make_items(collection: Collection) -> list[Item]:
    """Return the items of a collection.

    Two sources answer the same prompts in the same order, each with random numbers of its own. In pairs, one source is compared with
    itself; a pair of equal texts is no question and is left out, as is a text of white space alone.

    Raises:
        InvalidArgumentError: A source cannot be used, or nothing is left to judge.
    """
    sources = collection.sources
    if not 1 <= len(sources) <= 2:
        raise InvalidArgumentError(f"give one or two sources of texts, got {len(sources)}")
    pairs = collection.mode == "pairs"
    per_source = collection.samples if pairs else -(-collection.samples // len(sources))
    samples = [
        _read_or_write(collection, source, per_source, np.random.SeedSequence([collection.seed, i])) for i, source in enumerate(sources)
    ]
    found: list[tuple[str, tuple[str, ...], tuple[str, ...]]]
    if pairs:
        sides = _in_twos(samples[0]) if len(sources) == 1 else _by_prompt(*samples)
        found = [(a.prompt, (a.text, b.text), (a.source, b.source)) for a, b in sides if a.text != b.text]
    else:
        found = [(s.prompt, (s.text,), (s.source,)) for row in _interleaved(samples) for s in row]
    found = [item for item in found if all(text.strip() for text in item[1])]
    if pairs:  # of the pairs there are; rated texts were shuffled before, so that both sources have their share
        found = [found[place] for place in np.random.default_rng(collection.seed).permutation(len(found))]
    found = found[: collection.samples]
    if not found:
        raise InvalidArgumentError(f"{' and '.join(sources)}: no {'two different texts of one prompt' if pairs else 'texts'} to judge")
    shuffled = np.random.default_rng(collection.seed).permutation(len(found))  # the ids, which browsers see, say nothing of the sources
    width = len(str(len(found)))
    return [Item(f"{i:0{width}d}", *found[place]) for i, place in enumerate(shuffled, 1)]


def is_file_of_texts(source: str) -> bool:
    """Return whether a source is a file to read rather than an agent."""
    return Path(source).suffix in (".jsonl", ".json", ".ndjson") or Path(source).is_file()


def _interleaved(samples: list[list[_Sample]]) -> list[list[_Sample]]:
    longest = max(map(len, samples))
    return [[s[i] for s in samples if i < len(s)] for i in range(longest)]


def _in_twos(samples: list[_Sample]) -> list[tuple[_Sample, _Sample]]:
    """Return the texts of each prompt, two by two in their order."""
    waiting: dict[str, _Sample] = {}
    pairs = []
    for sample in samples:
        if (first := waiting.pop(sample.prompt, None)) is not None:
            pairs.append((first, sample))
        else:
            waiting[sample.prompt] = sample
    return pairs


def _by_prompt(first: list[_Sample], second: list[_Sample]) -> list[tuple[_Sample, _Sample]]:
    """Return each text of the first source with the next one of the second that has the same prompt."""
    waiting: dict[str, list[_Sample]] = {}
    for sample in second:
        waiting.setdefault(sample.prompt, []).append(sample)
    return [(sample, waiting[sample.prompt].pop(0)) for sample in first if waiting.get(sample.prompt)]


def _read_or_write(collection: Collection, source: str, n: int, seeds: np.random.SeedSequence) -> list[_Sample]:
    if is_file_of_texts(source):
        samples = _read(Path(source))
        if collection.mode == "ratings":
            samples = [samples[place] for place in np.random.default_rng(seeds).permutation(len(samples))]
        return samples
    twice = collection.mode == "pairs" and len(collection.sources) == 1
    return _write(collection, source, n, np.random.default_rng(seeds), twice)


def _read(path: Path) -> list[_Sample]:
    """Read a table of texts (CSV, TSV, Parquet), or a JSON object a line: "text" or "continuation", perhaps "prompt" and "source"."""
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix in (*DELIMITERS, ".parquet"):
        found = read_judgements(path)
        if found.kind == "pairs":
            raise InvalidArgumentError(f"{path} holds pairs that were judged; give texts to judge")
        return [_Sample(item.prompt, item.text, item.source or str(path)) for item in found.items]
    return [_sample(path, place, row) for place, row in json_rows(path)]


def _sample(path: Path, place: str, row: dict[str, Any]) -> _Sample:
    field = "text" if "text" in row else "continuation"
    try:
        if field not in row:
            raise JudgementError("text", "is missing")
        values = {"prompt": row.get("prompt", ""), field: row[field], "source": row.get("source") or str(path)}
        for name, value in values.items():
            if not isinstance(value, str):
                raise JudgementError(name, f"must be a text, got {value!r}")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise JudgementError(name, "holds half a surrogate pair, which cannot be stored") from None
    except JudgementError as error:
        raise placed(path, place, error) from None
    return _Sample(values["prompt"], values[field], values["source"])


def _write(collection: Collection, source: str, n: int, rng: np.random.Generator, twice: bool) -> list[_Sample]:
    """Let an agent continue `n` prompts of its task (in an order that depends on the collection's seed alone), once or twice each."""
    from textgym.agent import AGENT_FILE, load_agent, make_agent
    from textgym.experiments.train import load_run
    from textgym.mdp import TokenMDP
    from textgym.rewards.reward import make_reward
    from textgym.tasks import make_task

    folder = load_run(source)
    unscored: Callable[..., list[float]] = lambda episodes: [0.0] * len(episodes)  # noqa: E731  # its type is what matters
    if (folder / AGENT_FILE).is_file():
        agent = load_agent(folder, None if collection.task is None else make_task(collection.task), reward=unscored, n_envs=1)
    elif os.sep in source or folder.exists():
        raise InvalidArgumentError(f"{source!r} holds no agent: give a run directory, an agent's folder, an agent's name or a .jsonl file")
    elif collection.task is None:
        raise InvalidArgumentError(f"which task shall the agent {source!r} write for? pass --task")
    else:
        agent = make_agent(source, collection.task, seed=collection.seed, reward=unscored, n_envs=1)
    running = agent.env.mdp
    budget = running.max_new_tokens if collection.max_new_tokens is None else collection.max_new_tokens
    mdp = TokenMDP(running.task, running.vocabulary, make_reward(unscored), min(n, 64), collection.split, budget)
    order = np.random.default_rng(collection.seed).permutation(mdp.n_prompts)
    prompts = [int(i) for i in np.resize(order, n)]
    rounds = [agent.write(mdp, prompts, rng) for _ in range(1 + twice)]
    return [_Sample(t.info["prompt"], t.info["continuation"], source) for texts in zip(*rounds, strict=True) for t in texts]
