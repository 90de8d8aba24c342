"""What a reward costs: "log-prob" per token by the length of the prefix, and the score cache per text.

Seconds are of this process's one thread, not of the clock, so that other processes on the machine move the figures less.

Usage: python benchmarks/reward.py [--quick] [--rounds 15] [--rows 1 16]
       python benchmarks/reward.py --texts REWARD REWARD ...     (names or expressions)

The language model is the bundled one; as it has 128 positions, its table of positions is repeated to make room for 256 tokens (the scores of the
longer texts mean nothing, their cost is the same).

--texts scores different review sentences in batches of 32, each for the first time, a part in every round, the rewards in turns.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import textgym
from textgym.lm.source import resolve_model
from textgym.rewards import Cached
from textgym.tokenization import load_vocabulary

POSITIONS, LENGTHS, WINDOW = 320, (32, 64, 128, 256), 16
N_TEXTS, TEXT_BATCH = 512, 32  # of a round


def lengthened_model(folder):
    """Write the bundled model with more positions into a folder."""
    path = resolve_model("reviews")
    model = AutoModelForCausalLM.from_pretrained(path)
    old = model.transformer.wpe.weight.data
    model.config.n_positions = POSITIONS
    longer = AutoModelForCausalLM.from_config(model.config)
    state = model.state_dict()
    state["transformer.wpe.weight"] = old.repeat(-(-POSITIONS // len(old)), 1)[:POSITIONS]
    longer.load_state_dict(state)
    longer.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)


def step_seconds(model, vocabulary, rows, rng):
    """Return the seconds of every step while `rows` texts grow from an empty prompt to the longest length."""
    scorer = model.token_scorer(rows, vocabulary)
    tokens = rng.integers(10, vocabulary.size, (max(LENGTHS) + WINDOW, rows)).tolist()
    every = list(range(rows))
    scorer.start(every, [[0]] * rows)
    seconds = []
    for row in tokens:
        start = time.process_time()
        scorer.step(every, row)
        seconds.append(time.process_time() - start)
    return np.array(seconds)


def whole_seconds(model, vocabulary, rows, length, rng):
    """Return the seconds of scoring `rows` unfinished texts of one length anew, as a reward without a step form does at every token."""
    ids = rng.integers(10, vocabulary.size, (rows, length)).tolist()
    episodes = [textgym.Episode("", "x", (0,), tuple(i)) for i in ids]
    start = time.process_time()
    model.score(episodes)
    return time.process_time() - start


def spread(values, form="{:.2f}"):
    """Return median [min, max]."""
    return f"{form} [{form}, {form}]".format(np.median(values), np.min(values), np.max(values))


def log_prob_table(folder, all_rows, rounds):
    """Print the cost per token by length."""
    model = textgym.make_reward("log-prob", model=folder, dense=True).terms[0].model
    vocabulary = load_vocabulary(folder)
    rng = np.random.default_rng(0)
    print(
        f"| rows | tokens so far | step form, µs per token | ... times that at {LENGTHS[0]} | scored anew, µs per token | ... times that at {LENGTHS[0]} |"
    )
    print("|---|---|---|---|---|---|")
    for rows in all_rows:
        step_seconds(model, vocabulary, rows, rng)  # warm
        steps = np.stack([step_seconds(model, vocabulary, rows, rng) for _ in range(rounds)]) / rows * 1e6  # (rounds, steps)
        by_length = {n: np.median(steps[:, n - WINDOW : n + WINDOW], 1) for n in LENGTHS}
        anew = {n: np.array([whole_seconds(model, vocabulary, rows, n, rng) for _ in range(min(rounds, 3))]) / rows * 1e6 for n in LENGTHS}
        for n in LENGTHS:
            ratio, anew_ratio = by_length[n] / by_length[LENGTHS[0]], anew[n] / anew[LENGTHS[0]]
            cells = [spread(by_length[n], "{:,.0f}"), spread(ratio), spread(anew[n], "{:,.0f}"), spread(anew_ratio)]
            print(f"| {rows} | {n} | {' | '.join(cells)} |")
        short, long = (steps[:, :n].mean(1) for n in (LENGTHS[0], LENGTHS[-1]))
        print(f"\nWhole texts, {rows} rows: a token of {LENGTHS[-1]} costs {spread(long / short)} times a token of {LENGTHS[0]}.\n")


def cache_table(folder, n_texts, rounds):
    """Print the cost of the score cache per text."""
    print("| score cache, batches of 64 | µs per text |\n|---|---|")
    new, known = [], []
    for i in range(rounds):
        episodes = [textgym.Episode("A text", f" number {k} of round {i}") for k in range(n_texts)]
        reward = Cached(lambda batch: [0.0] * len(batch), Path(folder) / "scores.sqlite", identity="constant")
        for found in (new, known):
            start = time.process_time()
            for at in range(0, n_texts, 64):
                reward.score(episodes[at : at + 64])
            found.append((time.process_time() - start) / n_texts * 1e6)
    print(f"| a text that is not there: look, score, commit | {spread(new, '{:,.0f}')} |")
    print(f"| a text that is there | {spread(known, '{:,.0f}')} |")


def texts_table(names, rounds):
    """Print how many whole texts a reward scores in a second of one core."""
    prompts = [p for p in textgym.make_task("ReviewContinuation").split("train") if p.references]
    rounds = min(rounds, len(prompts) // N_TEXTS)
    vocabulary = load_vocabulary("reviews")
    episodes = []
    for prompt, other in zip(prompts, [*prompts[1:], prompts[0]], strict=True):  # another prompt's reference: not the text itself
        text = other.references[0].removeprefix(other.text)
        before, after = vocabulary.encode([prompt.text, text])
        episodes.append(textgym.Episode(prompt.text, text, tuple(before), tuple(after), prompt.references))
    warm, episodes = episodes[-2:], episodes[: rounds * N_TEXTS]
    rewards = {name: textgym.make_reward(name) for name in names}
    found = {name: [] for name in names}
    for reward in rewards.values():
        reward.score(warm)
    for at in range(0, len(episodes), N_TEXTS):
        for name, reward in rewards.items():
            start = time.process_time()
            for first in range(at, at + N_TEXTS, TEXT_BATCH):
                reward.score(episodes[first : first + TEXT_BATCH])
            found[name].append(N_TEXTS / (time.process_time() - start))
    print(f"{len(episodes)} texts of {np.mean([len(e.text) for e in episodes]):.0f} characters\n")
    print(f"| reward | texts per CPU second, median [min, max] of {rounds} |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {spread(values, '{:,.0f}')} |")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--texts", nargs="+", metavar="REWARD", help="whole texts a second of these rewards, and no other table")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    torch.set_num_threads(1)
    if options.texts:
        texts_table(options.texts, rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        lengthened_model(folder)
        log_prob_table(folder, options.rows, rounds)
        cache_table(folder, 2048, min(rounds, 5))


if __name__ == "__main__":
    main()
