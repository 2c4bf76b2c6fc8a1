"""Where a run's time and memory go: the demo's search in this process, and on one and two Ray hosts.

python benchmarks/overhead.py [--zoo demo/zoo] [--repeats 3] [--evaluations 200]

Candidates alternate; medians over repeats. Shares are of the hosts' time (hosts × seconds of search).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import save

POOLS = {
    "local": ["pool.kind=local", "pool.hosts=1"],
    "ray, 1 host": ["pool.hosts=1"],
    "ray, 2 hosts": ["pool.hosts=2"],
}
CONFIG = Path(__file__).parents[1] / "examples" / "demo.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=200)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in POOLS}
    for _ in range(options.repeats):
        for name, settings in POOLS.items():
            runs[name].append(one_run(options, settings))
    table = {
        name: {key: statistics.median(r[key] for r in rows) for key in rows[0]}
        for name, rows in runs.items()
    }
    for name, row in table.items():
        print(name, json.dumps({k: round(v, 3) for k, v in row.items()}))
    print(save("overhead", {"evaluations": options.evaluations, "median": table, "runs": runs}))


def one_run(options: argparse.Namespace, settings: list[str]) -> dict[str, Any]:
    """One run in a fresh process, as from the command line."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [
            f"root={options.zoo.resolve()}",
            f"budget.evaluations={options.evaluations}",
            "baselines={}",
            *settings,
        ]
        command = [
            str(Path(sys.executable).parent / "evo"),
            "run",
            str(CONFIG),
            "--run-dir",
            f"{folder}/run",
        ]
        subprocess.run(
            [*command, *(a for k in keys for a in ("--set", k))], check=True, capture_output=True
        )
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    memory = summary["peak_memory_bytes"]
    return {
        **summary["time"],
        "coordinator_peak_mib": memory["coordinator"] / 2**20,
        "host_peak_mib": max(memory["hosts"].values()) / 2**20,
    }


if __name__ == "__main__":
    main()
