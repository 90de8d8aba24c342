"""Memory of this process and of a CUDA device, in MiB: in use, at its peak, and given back."""

import ctypes
import gc
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MEBIBYTE = 2.0**20
PROCESS = Path("/proc/self")


def resident_memory() -> float | None:
    """Return the memory that the process has in use, MiB; None where the system does not tell (not Linux)."""
    try:
        pages = int((PROCESS / "statm").read_text().split()[1])
    except OSError:
        return None
    import resource  # not there on Windows

    return pages * resource.getpagesize() / MEBIBYTE


def give_back_free_memory() -> None:
    """Collect garbage, and return the memory that the C library holds free to the system, where it can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def reset_peak(device: "torch.device") -> None:
    """Begin a new measurement, free of what earlier work has left. Where the system cannot (not Linux), the process's own peak goes on from its start."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    give_back_free_memory()
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")


def peak_memory(device: "torch.device") -> float:
    """Return the peak since `reset_peak`, MiB: of memory allocated on a CUDA device, else of the process's resident memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    try:
        # not getrusage: a process started from another one inherits that one's peak
        found = re.search(r"VmHWM:\s*(\d+) kB", (PROCESS / "status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024 / MEBIBYTE
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MEBIBYTE
