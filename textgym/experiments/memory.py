"""Memory: the peak that a process has used since a point, in MiB."""

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

MEBIBYTE = 2.0**20
PROCESS = Path("/proc/self")


def reset_peak(device: torch.device) -> None:
    """Begin a new measurement. Where the system cannot (not Linux), the process's own peak goes on from its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """Return the peak since `reset_peak`, MiB: of memory allocated on a CUDA device, else of the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    try:
        # not getrusage: a process started from another one inherits that one's peak
        found = re.search(r"VmHWM:\s*(\d+) kB", (PROCESS / "status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024 / MEBIBYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MEBIBYTE
