"""Every learning agent on every task: a table agent × task with controls, and a picture of each agent's curve among the others'.

Usage: python benchmarks/learning.py --out DIR [--tasks CopyToken,...] [--agents ppo,...] [--seeds N] [--tokens N] [--pictures docs/agents]

Equal token budgets and seeds per task, judged on held-out prompts; an interrupted run goes on when the same command is given again.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from textgym.cli.progress import progress_bar
from textgym.experiments.compare import CONTROL, CompareConfig, compare
from textgym.experiments.report import write_report
from textgym.experiments.statistics import mean_interval
from textgym.html_page import COLOURS

AGENTS = (
    "ppo", "a2c", "reinforce", "grpo", "rloo", "trpo", "nlpo", "dqn", "soft-q", "sac", "ilql", "bc", "dagger", "gail", "expert-iteration",
    "dpo", "best-of-n", "supervised", "oracle",
)  # fmt: skip
WITHOUT = {
    "CopyToken": ("supervised", "oracle"),  # no labels; every copy is right
    "TokenChain": ("gail", "supervised"),  # no references, no labels
    "ReviewContinuation": ("dagger", "supervised", "oracle"),  # no expert to ask, no labels, no right answer
}
BUDGETS = {"CopyToken": 12_000, "ReviewClassification": 5_120, "TokenChain": 12_000, "ReviewContinuation": 6_000}  # tokens of each run
SEEDS = {"CopyToken": 3, "ReviewClassification": 3, "TokenChain": 3, "ReviewContinuation": 5}
PROMPTS = {
    "ReviewClassification": (120, 510),
    "TokenChain": (180, 180),
}  # for validation, for the test; all that there are of the 180 and the 510
UNTRAINED = ("best-of-n", "supervised", "oracle")
SMALL = {"learning_rate": 3e-3}  # for the networks of two small tasks, which start from nothing
SETTINGS = {"CopyToken": SMALL, "TokenChain": SMALL}
LABELS = "ReviewClassification"
OPTIONS = {LABELS: {"least_rating": 2.0}}  # what people agree on: few texts teach something
# The gap between the two labels' logits is common to all sentences at first, and drifts with every large step: small ones, and what pulls it back
STEADY = {"learning_rate": 3e-4, "kl_coef": 0.3}
SLOW = {"learning_rate": 1e-3}  # one reward of a group's decides the step: larger ones end in one text for every prompt
WIDE = {"learning_rate": 3e-4, "kl_coef": 0.1, "n_envs": 64}
OWN = {
    ("CopyToken", "sac"): {"alpha_lr": 0.002},
    ("CopyToken", "ilql"): {"beta": 8.0},
    ("CopyToken", "gail"): {"n_envs": 64, "n_minibatches": 1, "discriminator": {"learning_rate": 3e-3}},
    ("CopyToken", "trpo"): {"n_steps": 8, "target_kl": 0.05, "cg_max_steps": 4},
    ("TokenChain", "reinforce"): SLOW,
    ("TokenChain", "grpo"): SLOW,
    ("TokenChain", "rloo"): SLOW,
    ("TokenChain", "dpo"): SLOW,
    ("TokenChain", "soft-q"): {**SLOW, "alpha": 0.03},  # at the default 0.1 even the optimal soft policy gets 0.66
    ("TokenChain", "ilql"): {"beta": 40.0},  # nats per unit of reward, of which a symbol is worth a tenth or two
    ("TokenChain", "bc"): {"data": "offline"},
    # one token is a whole text here: updates after as many texts as elsewhere, not after as many tokens
    (LABELS, "ppo"): {**STEADY, "n_steps": 2, "batch_size": 32, "n_epochs": 1},
    (LABELS, "nlpo"): {**STEADY, "n_steps": 2, "batch_size": 32, "n_epochs": 1},
    (LABELS, "a2c"): {**STEADY, "n_steps": 1},
    (LABELS, "trpo"): {"kl_coef": 0.1, "n_steps": 8, "batch_size": 256, "cg_max_steps": 4, "n_critic_updates": 1, "target_kl": 0.05},
    (LABELS, "reinforce"): {**STEADY, "baseline": "moving-average"},
    # answers of one prompt tell something only where they differ: many prompts per step, and each used twice
    (LABELS, "grpo"): {**WIDE, "group_size": 4, "n_epochs": 2, "n_minibatches": 1},
    (LABELS, "rloo"): {"learning_rate": 5e-4, "kl_coef": 0.5, "n_envs": 64, "group_size": 2, "n_epochs": 2, "n_minibatches": 1},
    # Q of a wrong and of a right label are far apart: in nats that is a small way with a large α; and V must not be what moves most
    (LABELS, "dqn"): {"learning_rate": 1e-3, "updates": 2, "beta": 0.3, "kl_coef": 0.3, "value_lr_scale": 1.0},
    (LABELS, "soft-q"): {"learning_rate": 1e-3, "updates": 2, "alpha": 0.3, "value_lr_scale": 1.0},
    (LABELS, "sac"): {"learning_rate": 5e-4, "updates": 2, "alpha": 0.3, "alpha_lr": 0.0, "value_gradient": 1.0, "value_lr_scale": 1.0},
    (LABELS, "bc"): {"share": 1.0},
    # what the language model's states tell of a sentence at first, D could not learn from: its trunk learns, too
    (LABELS, "gail"): {**WIDE, "share": 1.0, "n_epochs": 2, "discriminator": {"trunk": "trained", "learning_rate": 5e-4}},
    (LABELS, "expert-iteration"): {"learning_rate": 5e-4, "n_envs": 64, "replay_size": 200_000},
    (LABELS, "dpo"): {"learning_rate": 5e-4, "beta": 1.0, "n_envs": 64, "replay_size": 200_000},
}


def run(task, options):
    """Return the comparison of one task, and write its report."""
    agents = tuple(a for a in options.agents.split(",") if a not in WITHOUT.get(task, ()))
    settings = {"device": "cpu"}
    for agent in agents:
        if agent not in UNTRAINED:
            own = {**SETTINGS.get(task, {}), **OWN.get((task, agent), {})}
            settings |= {f"{agent.replace('-', '_')}.{name}": value for name, value in own.items()}
    validation, test = PROMPTS.get(task, (48, 96))
    config = CompareConfig(
        task, agents, options.seeds or SEEDS[task], options.tokens or BUDGETS[task], settings, 4, validation, test, OPTIONS.get(task, {})
    )
    with progress_bar(task, config.spending.unit) as bar:
        comparison = compare(config, Path(options.out) / task, options.workers, bar)
    write_report(comparison, Path(options.out) / task / "report.html")
    return comparison


def figure_of(row, results, task):
    """Return what an agent is judged by: the IQM of the reward, or where texts score one of two numbers, so that it says little, a mean."""
    if row.accuracy is not None:
        return row.accuracy
    return mean_interval(np.array([r["rewards"] for r in results])) if task == "TokenChain" else row.reward


def table(comparisons):
    """Return the table agent × task in Markdown: figure with interval, and mean seconds of learning."""
    agents = list(dict.fromkeys(row.agent for c in comparisons.values() for row in c.rows))
    lines = [
        "| agent | " + " | ".join(f"{task}, {c.config.tokens:,} tokens, {c.config.seeds} seeds" for task, c in comparisons.items()) + " |",
        "|---" * (1 + len(comparisons)) + "|",
    ]
    for agent in agents:
        cells = []
        for task, c in comparisons.items():
            row = next((r for r in c.rows if r.agent == agent), None)
            cells.append("—" if row is None else f"{figure_of(row, c.results[agent], task)} · {row.figures['seconds']:.0f} s")
        lines.append(f"| `{agent}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(agent, comparisons):
    """Return the curves of one agent on every task, those of the others in grey behind."""
    shown = {task: c for task, c in comparisons.items() if agent in c.results}
    figure = Figure(figsize=(3.6 * len(shown), 2.8), layout="constrained")
    for axis, (task, c) in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown.items(), strict=True):
        for other, results in sorted(c.results.items(), key=lambda item: item[0] == agent):  # its own last, on top
            if other == CONTROL:
                axis.axhline(np.mean([r["curve"][0]["reward"] for r in results]), color="#999999", linestyle=(0, (1, 3)))
                continue
            length = min(len(r["curve"]) for r in results)
            spent = np.mean([[p["spent"] for p in r["curve"][:length]] for r in results], axis=0)
            values = np.array([[p["reward"] for p in r["curve"][:length]] for r in results])
            if other == agent:
                axis.fill_between(spent, values.min(0), values.max(0), color=COLOURS[0], alpha=0.2, linewidth=0)
                axis.plot(spent, values.mean(0), color=COLOURS[0], linewidth=2, marker="o", markersize=3)
            else:
                axis.plot(spent, values.mean(0), color="#cccccc", linewidth=0.8)
        axis.set(title=task, xlabel=c.config.spending.unit, ylabel="task reward, validation")
        axis.locator_params("x", nbins=5)
        axis.grid(alpha=0.25)
    return figure


def main():
    """Run, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tasks", default=",".join(BUDGETS))
    parser.add_argument("--agents", default=",".join(AGENTS))
    parser.add_argument("--seeds", type=int, help="runs per agent, where it is not that of the table")
    parser.add_argument("--tokens", type=int, help="budget of each run, where it is not that of the table")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--pictures", help="folder for one picture per agent")
    options = parser.parse_args()
    comparisons = {task: run(task, options) for task in options.tasks.split(",")}
    print(table(comparisons))
    if options.pictures:
        for agent in options.agents.split(","):
            if any(agent in c.results for c in comparisons.values()):
                picture(agent, comparisons).savefig(Path(options.pictures) / f"{agent}.png", dpi=110)


if __name__ == "__main__":
    main()
