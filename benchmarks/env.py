"""Token-steps per second of the vector environments without a model, the reward excluded.

Usage: python benchmarks/env.py [--quick] [--rows 64] [--steps 3000] [--rounds 5]
"""

import argparse
import time

import gymnasium as gym
import numpy as np

import textgym  # noqa: F401  # registers the environments
from textgym.sb3 import make_vec_env


def constant(episodes):
    """Reward that costs nothing."""
    return [0.0] * len(episodes)


def measure(env, step, rows, steps, rng, next_step_autoreset):
    """Return token-steps per second over `steps` steps with allowed tokens drawn beforehand."""
    allowed = np.flatnonzero(env.action_masks()[0])
    actions = rng.choice(allowed, size=(steps, rows))
    ended = []
    start = time.perf_counter()
    for row in actions:
        ended.append(step(row)[2])
    seconds = time.perf_counter() - start
    resets = int(np.sum(ended[:-1])) if next_step_autoreset else 0  # a row that only resets in a step writes no token
    return (rows * steps - resets) / seconds


def main():
    """Print both faces, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of 500 steps")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 500
    rng = np.random.default_rng(0)
    vector = gym.make_vec("textgym/ReviewContinuation-v0", num_envs=options.rows, reward=constant)
    sb3 = make_vec_env("textgym/ReviewContinuation-v0", n_envs=options.rows, reward=constant, seed=0, monitor=False)
    vector.reset(seed=0)
    sb3.reset()
    faces = {"gym.make_vec": (vector.unwrapped, vector.step, True), "make_vec_env (stable-baselines3)": (sb3, sb3.step, False)}
    found = {name: [] for name in faces}
    for _ in range(options.rounds):
        for name, (env, step, next_step_autoreset) in faces.items():
            found[name].append(measure(env, step, options.rows, options.steps, rng, next_step_autoreset))
    print(f"| face, {options.rows} rows | token-steps/s, median [min, max] of {options.rounds} |\n|---|---|")
    for name, speeds in found.items():
        print(f"| {name} | {np.median(speeds):,.0f} [{min(speeds):,.0f}, {max(speeds):,.0f}] |")


if __name__ == "__main__":
    main()
