"""What every benchmark writes beside its numbers: machine, load, versions, when; and one table of all.

python benchmarks/results.py     prints the headline of each file in results/
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evo.versions import versions

FOLDER = Path(__file__).parent / "results"
_LOAD_AT_START = os.getloadavg()[0]


def machine() -> dict[str, Any]:
    """Processor, cores and memory."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": round(pages * size / 2**30)}


def save(name: str, data: dict[str, Any], headline: str = "") -> Path:
    """Write ``results/<name>.json``. ``headline``: what was found, in one line, for the table of all.

    ``load`` is the mean number of processes that wanted a core in the minute before start and end: the
    first tells what else the machine did, the second holds the benchmark's own.
    """
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    head = {
        "headline": headline,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": {"at_start": _LOAD_AT_START, "at_end": os.getloadavg()[0]},
    }
    whole = {**head, "machine": machine(), "versions": versions(), **data}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def table(folder: Path = FOLDER) -> Table:
    """The headline of each results file."""
    found = Table(title="benchmarks/results", show_lines=True)
    for column in ("benchmark", "measured", "found"):
        found.add_column(column, overflow="fold")
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        headline = data.get("headline") or "(no headline; see the file)"
        found.add_row(path.stem, data["when"][:10], headline)
    return found


if __name__ == "__main__":
    Console().print(table())
