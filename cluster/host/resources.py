"""What this machine has, and what this process took of it."""

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
    """Let this process allocate so much more than it has, and refuse what goes beyond (Linux).

    What is refused raises in Python and in torch, where the system's own remedy is to kill. Private
    mappings that can be written, such as founders' files, count as allocated: leave room for them.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return
    found = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    has = int(found[1]) * 1024 if found else 0
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (has + more_bytes, hard))
