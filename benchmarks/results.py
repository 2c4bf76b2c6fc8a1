"""What every benchmark writes beside its numbers: machine, versions, when."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evo.summary import versions

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores and memory."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": round(pages * size / 2**30)}


def save(name: str, data: dict[str, Any]) -> Path:
    """Write ``results/<name>.json``."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    head = {"when": datetime.now(UTC).isoformat(timespec="seconds")}
    whole = {**head, "machine": machine(), "versions": versions(), **data}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path
