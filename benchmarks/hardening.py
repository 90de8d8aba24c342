"""Tabulate hardened reward models: exploits before and after on test prompts, agreement with people, and what the guard costs.

Usage: python benchmarks/hardening.py FOLDER... [--attacks N] [--speed]

Each FOLDER was written by `textgym reward harden`, one for each seed. A cell is the mean over the folders [least, most]. With --attacks every
hardened model is attacked so many times more on test prompts, with other seeds, and "after" is over all its attacks. With --speed the
first folder's model also scores the bundled test sentences with and without its guard, in turns,
one thread.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.rewards.redteam import redteam

TASK = "ReviewContinuation"
N_TEXTS, N_TURNS = 400, 4


def cell(values, digits=0):
    return f"{np.mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def measured(folder):
    told = json.loads((Path(folder) / "reward_model.json").read_text(encoding="utf-8"))["hardening"]
    return told["before"], told["after"]


def attacked(folder, n):
    """Return `n` more measures on test prompts, in the form of the stored ones."""
    reward, (_, after) = FittedReward(folder), measured(folder)
    reports = [redteam(reward, TASK, "test", seed=101 + i, seconds=600) for i in range(n)]
    return [{**after, "beaten": {exploit.name: exploit.percentile for exploit in report.exploits}} for report in reports]


def print_table(folders, n_more):
    stored = [measured(folder) for folder in folders]
    pairs = [(before, m) for folder, (before, after) in zip(folders, stored, strict=True) for m in [after, *attacked(folder, n_more)]]
    print("| | before | after |\n|---|---|---|")
    pearsons = [[m["pearson"] for m in side] for side in zip(*pairs, strict=True)]
    print(f"| Pearson, test ratings | {cell(pearsons[0], 3)} | {cell(pearsons[1], 3)} |")
    kinds = sorted(pairs[0][0]["beaten"], key=lambda kind: -np.mean([before["beaten"][kind] for before, _ in pairs]))
    for kind in kinds:
        print(f"| {kind} | " + " | ".join(cell([m["beaten"][kind] for m in side]) for side in zip(*pairs, strict=True)) + " |")
    for name, of in (("mean of all kinds", np.mean), ("worst kind", max)):
        print(f"| {name} | " + " | ".join(cell([of([*m["beaten"].values()]) for m in side]) for side in zip(*pairs, strict=True)) + " |")


def print_speed(folder):
    """Texts that were not scored before, in four turns of guarded and bare."""
    reward = FittedReward(folder)
    texts = [item.text for item in load_judgements("human-ratings").split("test").items]
    guard, spent = reward.guard, {"bare": [], "guarded": []}
    reward.score_texts(["the model is loaded now, and good"])
    for turn in range(N_TURNS):
        part = texts[turn * N_TEXTS : (turn + 1) * N_TEXTS]
        for name, used in (("bare", None), ("guarded", guard)):
            reward.guard = used
            begun = time.process_time()
            reward.score_texts(part)
            spent[name].append(len(part) / (time.process_time() - begun))
    ratios = np.array(spent["bare"]) / np.array(spent["guarded"])
    print(
        f"texts per CPU second: {cell(spent['bare'])} without the guard, {cell(spent['guarded'])} with it: {cell(ratios, 1)} times slower"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--attacks", type=int, default=0)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print_table(options.folders, options.attacks)
    if options.speed:
        print_speed(options.folders[0])
