"""Processor cores, and the memory of this process."""

import os
import re
import resource
import sys
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """Greatest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def limit_memory(more_bytes: int) -> None:
    """Limit what this process may allocate to ``more_bytes`` more than now (Linux).

    Beyond the limit, Python and torch raise; without it, the system would kill the process. Private
    writable mappings, such as founders' files, count as allocated, so add their size.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return
    found = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    has = int(found[1]) * 1024 if found else 0
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (has + more_bytes, hard))
