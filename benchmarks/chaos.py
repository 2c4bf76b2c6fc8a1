"""Kill processes of runs at random times, resume the runs, and compare them with undisturbed ones.

python benchmarks/chaos.py [--runs 30] [--seed 0]

A cluster of a head and two workers, each in its own process, with a token. In every run, up to five
processes are killed with SIGKILL at random times: the driver, a model host, the scorer, a worker node, in
turn. A killed driver is restarted by `evo resume`, a killed node is replaced. Individuals, scores and
survivors must then equal, to the last bit, those of an undisturbed run in one process. Reported: kills,
evaluations done twice, and seconds from a kill to the next result.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

import psutil
import torch
from cluster_processes import ClusterProcesses
from results import save
from safetensors.torch import save_file

import evo.lineage
from evo.config.schema import RunConfig
from evo.evolution import Evolution

KINDS = ("driver", "host", "scorer", "node")
ALGORITHMS = ("recipe_search", "genome", "genome_plus", "differential_evolution", "random_search")
EVALUATIONS = 60
# Columns that depend on time and place.
TIMES = {"seconds", "build_seconds", "model_seconds", "at_seconds", "host", "attempt"}
DRIVER = [sys.executable, "-c", "from evo.cli import main; main()"]
WORKER_NAMES = {"host": "ray::HostActor", "scorer": "ray::ScorerActor"}


def config_for(folder: Path, number: int, **pool: Any) -> RunConfig:
    """A run of a tiny model, whose evaluations take 0.1 s and are counted."""
    founders = {}
    for i, name in enumerate(("base", "a", "b", "c")):
        founders[name] = folder / f"{name}.safetensors"
        if not founders[name].exists():
            x = torch.zeros(4)
            x[:i] = 1.0
            save_file({"x": x}, founders[name])
    calls = folder / f"calls-{number}"
    calls.touch()
    return RunConfig.model_validate(
        {
            "base": founders.pop("base"),
            "founders": founders,
            "engine": {"kind": "module", "build": "simulated:build"},
            "tasks": [
                {
                    "name": "t",
                    "metric": "simulated:counted",
                    "data": {s: f"{calls}:{s}" for s in ("dev", "select", "test")},
                }
            ],
            "algorithm": {"name": ALGORITHMS[number % len(ALGORITHMS)]},
            "budget": {"evaluations": EVALUATIONS},
            "seed": number,
            "pool": pool,
        }
    )


def calls_of(folder: Path, number: int) -> int:
    """Number of evaluations, one for each individual and split."""
    return (folder / f"calls-{number}").stat().st_size


def tables_of(run_dir: Path) -> dict[str, Any]:
    """Individuals, scores and survivors."""
    lineage = evo.lineage.open(run_dir)
    tables = {}
    for name in ("individuals", "evaluations", "items", "population"):
        table = lineage.table(name)
        tables[name] = table.select([c for c in table.column_names if c not in TIMES]).to_pylist()
    return tables


def undisturbed(folder: Path, number: int) -> tuple[dict[str, Any], int]:
    """The tables of a run in this process, and its number of evaluations."""
    run_dir = folder / f"whole-{number}"
    with Evolution(config_for(folder, number, kind="local"), run_dir) as evolution:
        for _ in evolution:
            pass
        evolution.finish()
    calls = calls_of(folder, number)
    (folder / f"calls-{number}").write_bytes(b"")
    return tables_of(run_dir), calls


class Disturbed:
    """One run on the cluster, whose processes are killed."""

    def __init__(self, cluster: ClusterProcesses, folder: Path, number: int) -> None:
        self.cluster, self.folder, self.number = cluster, folder, number
        self.run_dir = folder / f"run-{number}"
        self.path = folder / f"config-{number}.yaml"
        config = config_for(folder, number, kind="ray", address=cluster.gcs, hosts="auto")
        self.path.write_text(config.model_dump_json())
        self.log = (folder / f"log-{number}").open("wb")
        self.kills: list[dict[str, Any]] = []
        self.driver = self._start("run", str(self.path), "--run-dir", str(self.run_dir))

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        environment = self.cluster.users(PYTHONPATH=path)
        return subprocess.Popen(
            [*DRIVER, *arguments], env=environment, stdout=self.log, stderr=self.log
        )

    def progress(self) -> int:
        """The number of evaluations that hosts have done."""
        return calls_of(self.folder, self.number)

    def recorded(self) -> tuple[int, int]:
        """Time and size of the journal, which change with every recorded result."""
        journal = self.run_dir / "lineage" / "journal.arrows"
        try:
            found = journal.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def await_(self, condition: Any, limit_s: float = 120.0) -> bool:
        """Wait for ``condition``; whether it was true before the driver ended."""
        until = time.monotonic() + limit_s
        while not condition():
            if self.driver.poll() is not None:
                return bool(condition())
            if time.monotonic() > until:
                raise RuntimeError(f"run {self.number} hangs; see {self.log.name}")
            time.sleep(0.005)
        return True

    def disturb(self, kind: str, at: int, chance: random.Random) -> bool:
        """Kill a process of ``kind`` after ``at`` evaluations, and wait for the next result.

        False if there was no such process: the run had ended, or the process was being replaced.
        """
        if not self.await_(lambda: self.progress() >= at and self.recorded()[0]):
            return False
        time.sleep(chance.random() * 0.1)
        victim = self._victim(kind, chance) if self.driver.poll() is None else None
        if victim is None:
            return False
        before = self.recorded()
        began = time.monotonic()
        victim.kill()
        if kind == "driver":
            self.driver.wait()
            self.driver = self._start("resume", str(self.run_dir))
        if kind == "node":
            self.cluster.add_worker()
        next_result = self.await_(lambda: self.recorded() != before)
        seconds = time.monotonic() - began if next_result else None
        self.kills.append({"kind": kind, "call": at, "seconds": seconds})
        return True

    def _victim(self, kind: str, chance: random.Random) -> psutil.Process | None:
        if kind == "driver":
            return psutil.Process(self.driver.pid)
        raylets = self.cluster.raylets()[1:]  # not the head's
        if kind == "node":
            return chance.choice(raylets)
        found = []
        for raylet in self.cluster.raylets():
            for process in raylet.children(recursive=True):
                try:
                    if process.cmdline()[0].startswith(WORKER_NAMES[kind]):
                        found.append(process)
                except (psutil.Error, IndexError):
                    continue
        return chance.choice(found) if found else None

    def finish(self) -> int:
        """Wait for the end; the exit code."""
        code = self.driver.wait(timeout=300)
        self.log.close()
        return code


def headline(data: dict[str, Any]) -> str:
    found = data["summary"]
    return (
        f"{found['identical']} of {found['runs']} runs ended identical after {sum(found['kills'].values())} "
        f"kills; {found['share_repeated']:.1%} of evaluations done again"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    done = 0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        cluster = ClusterProcesses(folder / "ray", workers=2)
        try:
            for number in range(options.runs):
                expected, needed = undisturbed(folder, number)
                run = Disturbed(cluster, folder, number)
                instants = sorted(chance.sample(range(1, needed - 3), chance.randint(1, 5)))
                for at in instants:
                    done += run.disturb(KINDS[done % len(KINDS)], at, chance)
                code = run.finish()
                same = code == 0 and tables_of(run.run_dir) == expected
                rows.append(
                    {
                        "algorithm": ALGORITHMS[number % len(ALGORITHMS)],
                        "identical": same,
                        "exit": code,
                        "kills": run.kills,
                        "calls": calls_of(folder, number),
                        "needed": needed,
                    }
                )
                print(number, rows[-1], flush=True)
                if not same:
                    print(Path(run.log.name).read_text(errors="replace")[-3000:], flush=True)
        finally:
            cluster.close()
    kills = [k for row in rows for k in row["kills"]]
    needed = sum(row["needed"] for row in rows)
    summary = {
        "runs": len(rows),
        "identical": sum(row["identical"] for row in rows),
        "kills": Counter(k["kind"] for k in kills),
        "most_kills_in_a_run": max(len(row["kills"]) for row in rows),
        "evaluations_repeated": sum(row["calls"] for row in rows) - needed,
        "share_repeated": sum(row["calls"] for row in rows) / needed - 1.0,
        "seconds_to_next_result": {
            kind: {
                "median": statistics.median(s),
                "worst": max(s),
            }
            for kind in KINDS
            if (s := [k["seconds"] for k in kills if k["kind"] == kind and k["seconds"]])
        },
    }
    print(summary)
    data = {"summary": summary, "runs": rows}
    print(save("chaos", data, headline(data)))


if __name__ == "__main__":
    main()
