"""Over-optimisation run: a gold model, proxies from little data, and what the gold says while agents and best-of-n push the proxies up."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from textgym.errors import InvalidArgumentError
from textgym.experiments.statistics import Estimate
from textgym.processes import worker_pool
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.overoptimization.config import SINGLE, WAYS, OveroptimizationConfig
from textgym.reward_modeling.overoptimization.curve import Curve, over_seeds
from textgym.reward_modeling.overoptimization.fitted_models import fit_gold, fit_proxies, halves
from textgym.reward_modeling.overoptimization.run_folder import RunFolder, read
from textgym.reward_modeling.overoptimization.selection import score_samples, selection_curves, write_samples
from textgym.reward_modeling.overoptimization.training import train_against, training_curves
from textgym.reward_modeling.scorers import scorer_class

Job = tuple[str, Callable[..., None], tuple[Any, ...]]  # note, what is done with the settings and the folder, its other arguments
Show = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Overoptimization:
    """The outcome: curves of best-of-n and of RL, one for each size and combination."""

    config: OveroptimizationConfig
    gold_pearson: float
    best_of_n: tuple[Curve, ...]
    rl: tuple[Curve, ...]

    def against_single(self, curves: Sequence[Curve], size: int, how: str) -> tuple[Estimate, Estimate]:
        """Return an ensemble's KL at the gold score's peak and its final gold score, each minus the single proxy's of the same seed."""
        by_name = {curve.how: curve for curve in curves if curve.size == size}
        mixed, single = by_name[how], by_name[SINGLE]
        return over_seeds(mixed.kl_at_peaks - single.kl_at_peaks), over_seeds(mixed.gold[:, -1] - single.gold[:, -1])


def overoptimize(config: OveroptimizationConfig, out: str | Path, show: Show = lambda *_: None, processes: int = 1) -> Overoptimization:
    """Run it in a folder; what is finished there is not done again, so an interrupted run goes on.

    Args:
        config: What is run.
        out: The folder.
        show: Progress: called with (steps done, of so many, note).
        processes: How many parts are computed at a time, each in a process with as many threads as this one; the result is the same.

    Raises:
        InvalidArgumentError: The ratings have no individual raters, or are too few for the sizes.
        MissingExtraError: A scorer needs an optional package.
        RunDirectoryError: The folder holds another run, or cannot be written.
    """
    if processes < 1:
        raise InvalidArgumentError(f"processes must be at least 1, got {processes}")
    _, proxy_data = halves(load_judgements(config.judgements))
    if max(config.sizes) > len(proxy_data.split("train")):
        raise InvalidArgumentError(
            f"sizes go up to the {len(proxy_data.split('train')):,} training texts of the proxies' half, got {max(config.sizes)}"
        )
    for name in {config.gold_scorer, config.proxy_scorer}:
        scorer_class(name)(1)  # what is missing is missed before anything is computed
    folder = RunFolder(Path(out), config)
    seeds = config.seed_numbers
    fitting: list[Job] = [("gold model", fit_gold, ())]
    fitting += [(f"samples of seed {seed}", write_samples, (seed,)) for seed in seeds]
    fitting += [(f"proxies of {size} texts, seed {seed}", fit_proxies, (size, seed)) for size, seed in product(config.sizes, seeds)]
    using: list[Job] = [
        (f"{config.agent} against {how} of {size} texts, seed {seed}", train_against, (size, how, seed))
        for size, how, seed in product(config.sizes, WAYS, seeds)
    ]
    using += [(f"best of n, seed {seed}", score_samples, (seed,)) for seed in seeds]
    import torch

    done, steps = 0, len(fitting) + len(using)
    with worker_pool(processes, torch.get_num_threads()) if processes > 1 else nullcontext() as pool:
        for jobs in (fitting, using):
            for note in _finished(pool, config, folder, jobs):
                done += 1
                show(done, steps, note)
    pearson = float(read(folder.gold_figures)["pearson"])
    return Overoptimization(config, pearson, selection_curves(config, folder), training_curves(config, folder))


def _finished(pool: ProcessPoolExecutor | None, config: OveroptimizationConfig, folder: RunFolder, jobs: Sequence[Job]) -> Iterator[str]:
    """Do the jobs, in order where there is one process; yield the note of each when it is done."""
    if pool is None:
        for note, job, arguments in jobs:
            job(config, folder, *arguments)
            yield note
        return
    notes = {pool.submit(job, config, folder, *arguments): note for note, job, arguments in jobs}
    for future in as_completed(notes):
        future.result()
        yield notes[future]
