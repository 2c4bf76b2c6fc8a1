"""How busy the coordinator keeps hosts: of different speeds, a thousand of them, and real ones on Ray.

python benchmarks/coordinator.py [--only speeds|thousand|ray]

``speeds``: hosts whose evaluations take 1 to 5 times as long; by generations, and in a steady state;
hosts that only wait, and real ones on Ray. ``thousand``: the coordinator alone (search, recipes, journal,
lineage on disk) against 1,000 hosts that only wait. ``ray``: the most evaluations a second that Ray
itself passes on this machine: bare calls, and through pool, journal and lineage.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from results import FOLDER, save
from runner import medians
from safetensors.torch import save_file
from simulated import SimulatedPool

from cluster.host.resources import peak_memory
from cluster.pool import Pool
from cluster.ray.connect import ray, start_ray
from evo.algorithms import Start, make, read_settings
from evo.config.schema import BudgetConfig, RunConfig
from evo.evolution import Evolution
from evo.lineage.storage.journal import Journal
from evo.lineage.storage.writer import LineageWriter
from evo.search.evaluator import Evaluator
from evo.search.loop import Search
from evo.search.objective import Objective, WeighedTask
from fitness.tasks.task import TaskSpec, load_task
from operators.recipe import Founder

EXAMPLES = 100


def coordinator(
    pool: Pool,
    folder: Path,
    algorithm: dict[str, Any],
    evaluations: int,
    in_flight: int | None,
) -> Search:
    """A search with journal and lineage on disk, over founders that nobody loads."""
    founders = tuple(Founder(f"f{i}", str(i) * 64) for i in range(8))
    start = Start(founders, Founder("base", "b" * 64), 0, layers=32)
    task = load_task(TaskSpec(name="t", metric="simulated:instant", data=(("dev", "dev"),)))
    evaluator = Evaluator(pool, Objective((WeighedTask(task),)))
    journal = Journal(folder / "lineage" / "journal.arrows")
    evaluator.record = journal.append
    writer = LineageWriter(folder / "lineage", journal=journal)
    settings = read_settings(algorithm)
    search = Search(
        make(settings, start),
        evaluator,
        BudgetConfig(evaluations=evaluations),
        writer,
        in_flight=in_flight,
    )
    for _ in search:
        pass
    journal.close()
    return search


def lineage_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in (folder / "lineage").rglob("*.parquet"))


def simulated_speeds(repeats: int) -> dict[str, Any]:
    """16 hosts whose evaluations take 0.1 to 0.5 s."""
    rows: dict[str, list[dict[str, float]]] = {"generational": [], "steady_state": []}
    for _ in range(repeats):
        for loop, found in rows.items():
            pool = SimulatedPool(16, lambda host, job: 0.1 * (1 + host % 5), EXAMPLES)
            with tempfile.TemporaryDirectory() as folder:
                search = coordinator(
                    pool,
                    Path(folder),
                    {"name": "recipe_search", "population": 32},
                    600,
                    32 if loop == "steady_state" else None,
                )
            found.append(
                {
                    "utilisation": pool.utilisation["in_flow"],
                    "evaluations_per_second": search.evaluations / search.seconds,
                }
            )
    return {loop: medians(found) for loop, found in rows.items()}


def searched(config: RunConfig, run_dir: Path) -> dict[str, float]:
    """The search of a run with one task: the share of the hosts' time in use, and evaluations a second."""
    with Evolution(config, run_dir) as evolution:
        began = perf_counter()
        for _ in evolution:
            pass
        seconds = perf_counter() - began
        busy = evolution.lineage.table("evaluations")["seconds"].to_pylist()
    hosts = int(config.pool.hosts)
    return {
        "utilisation": sum(busy) / (hosts * seconds),
        "evaluations_per_second": len(busy) / seconds,
    }


def real_speeds(repeats: int) -> dict[str, Any]:
    """Five real hosts on Ray, whose evaluations take 0.1 to 0.5 s."""
    rows: dict[str, list[dict[str, float]]] = {"generational": [], "steady_state": []}
    for _ in range(repeats):
        for loop, found in rows.items():
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text)
                (folder / "pace").mkdir()
                config = toy(
                    folder,
                    "by_host",
                    str(folder / "pace"),
                    loop={"kind": loop},
                    pool={"kind": "ray", "hosts": 5},
                    budget={"evaluations": 150},
                    algorithm={"name": "recipe_search", "population": 10},
                )
                found.append(searched(config, folder / "run"))
    return {loop: medians(found) for loop, found in rows.items()}


def thousand(hosts: int) -> list[dict[str, Any]]:
    """The coordinator alone, at 1 s and at 10 s an evaluation."""
    rows = []
    for seconds, rounds in ((1.0, 30), (10.0, 10)):
        pool = SimulatedPool(hosts, lambda host, job, s=seconds: s, EXAMPLES)
        evaluations, before = hosts * rounds, peak_memory()
        with tempfile.TemporaryDirectory() as folder:
            began = perf_counter()
            processor = time.process_time()
            search = coordinator(
                pool,
                Path(folder),
                {"name": "recipe_search", "population": hosts},
                evaluations,
                2 * hosts,
            )
            taken = perf_counter() - began
            rows.append(
                {
                    "hosts": hosts,
                    "seconds_per_evaluation": seconds,
                    "evaluations": search.evaluations,
                    "examples": EXAMPLES,
                    "evaluations_per_second": search.evaluations / taken,
                    "utilisation": pool.utilisation,
                    "coordinator_busy": (time.process_time() - processor) / taken,
                    "memory_before_mib": before / 2**20,
                    "peak_memory_mib": peak_memory() / 2**20,
                    "lineage_bytes_per_evaluation": lineage_bytes(Path(folder)) / evaluations,
                }
            )
        print(rows[-1], flush=True)
    return rows


def no_wait(evaluations: int) -> dict[str, float]:
    """The most that the coordinator does in a second: hosts that answer at once."""
    pool = SimulatedPool(1000, lambda host, job: 0.0, EXAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        search = coordinator(
            pool, Path(folder), {"name": "recipe_search", "population": 1000}, evaluations, 2000
        )
    return {"evaluations_per_second": search.evaluations / search.seconds}


def toy(folder: Path, function: str, data: str, **changes: Any) -> RunConfig:
    paths = {}
    for i, name in enumerate(("base", "a", "b", "c")):
        paths[name] = folder / f"{name}.safetensors"
        x = torch.zeros(4)
        x[:i] = 1.0
        save_file({"x": x}, paths[name])
    return RunConfig.model_validate(
        {
            "base": paths.pop("base"),
            "founders": paths,
            "engine": {"kind": "module", "build": "simulated:build"},
            "tasks": [{"name": "t", "metric": f"simulated:{function}", "data": {"dev": data}}],
            **changes,
        }
    )


class _Nothing:
    def call(self) -> None:
        return None


def ray_ceiling() -> dict[str, float]:
    """Bare calls a second with 64 in flight; evaluations a second of a model that costs nothing."""
    start_ray(cpus=4)
    actors = [ray.remote(_Nothing).options(num_cpus=0).remote() for _ in range(2)]
    ray.get([a.call.remote() for a in actors])
    flying = [actors[i % 2].call.remote() for i in range(64)]
    done, began = 0, perf_counter()
    while perf_counter() - began < 5.0:
        ready, flying = ray.wait(flying, num_returns=1)
        ray.get(ready)
        done += 1
        flying.append(actors[done % 2].call.remote())
    calls = done / (perf_counter() - began)
    ray.shutdown()
    with tempfile.TemporaryDirectory() as text:
        config = toy(
            Path(text),
            "instant",
            "dev",
            loop={"kind": "steady_state"},
            pool={"kind": "ray", "hosts": 2},
            budget={"evaluations": 2000},
            algorithm={"name": "recipe_search", "population": 100},
        )
        rate = searched(config, Path(text) / "run")["evaluations_per_second"]
    return {"bare_calls_per_second": calls, "evaluations_per_second": rate}


def headline(data: dict[str, Any]) -> str:
    parts = []
    if "thousand" in data:
        waiting, rate = data["thousand"]["waiting"][0], data["thousand"]["no_wait"]
        parts.append(
            f"{waiting['hosts']} hosts of {waiting['seconds_per_evaluation']:g} s an evaluation are "
            f"{waiting['utilisation']['in_flow']:.0%} busy; at most "
            f"{rate['evaluations_per_second']:.0f} evaluations a second"
        )
    if "ray" in data:
        parts.append(f"{data['ray']['evaluations_per_second']:.0f} a second through Ray, 2 hosts")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["speeds", "thousand", "ray"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "speeds": lambda: {
            "simulated": simulated_speeds(options.repeats),
            "ray": real_speeds(options.repeats),
        },
        "thousand": lambda: {"waiting": thousand(1000), "no_wait": no_wait(20_000)},
        "ray": ray_ceiling,
    }
    path = FOLDER / "coordinator.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, part in parts.items():
        if options.only in (None, name):
            known[name] = part()
            print(name, json.dumps(known[name], indent=1), flush=True)
    data = {k: known[k] for k in parts if k in known}
    print(save("coordinator", data, headline(data)))


if __name__ == "__main__":
    main()
