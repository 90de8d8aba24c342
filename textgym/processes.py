"""Worker processes: runs side by side, each process with a fixed number of CPU threads."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from threading import Thread

# what a run imports and the modules below do not name at their top; a module that is missing is passed over
HEAVY = ["torch._dynamo", "stable_baselines3", "transformers.models.gpt2.modeling_gpt2", "textgym.experiments.train", "textgym.sb3"]


@contextmanager
def worker_pool(processes: int, threads: int = 1) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of worker processes; tasks that have not begun are dropped when an error leaves the block.

    Workers end with the process that started them, however it ended.

    Workers are never forked from this process, whose locked thread pools they would inherit: where the platform can, they are forked from
    a server that has imported the heavy packages and done nothing else, which saves each of them seconds of imports; elsewhere they
    are spawned. Either way a script that uses them needs `if __name__ == "__main__":`.

    Args:
        processes: How many at most.
        threads: CPU threads of each. Busy threads on shared cores spin against each other, so idle ones wait passively.
    """
    wanted = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    pool = None
    try:
        pool = ProcessPoolExecutor(processes, _context(), _start_worker, (threads,))
        yield pool
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def _start_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the death of the process that started this one; left alone, a worker would work on what was queued for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
