"""Shared by tests: taken out of test_faults."""

from pathlib import Path

from toys import scoring_tasks, write_founders

from cluster.founders.checkpoints import load_founders
from cluster.host.scorer import requests_for
from cluster.jobs import EngineSpec, HostSpec, PoolSpec
from fitness.tasks.task import TaskSpec, load_task


def fault_spec(folder: Path, memory_gib: float | None = None) -> PoolSpec:
    paths = write_founders(folder)
    files = load_founders(paths.pop("base"), paths)
    functions = {
        "nearness": "dev",
        "naps": "0.3",
        "hangs_for_b": "dev",
        "greedy_for_b": "dev",
        "hangs_once": str(folder / "hung"),
    }
    tasks = tuple(
        load_task(TaskSpec(name=f, metric=f"toys:{f}", data=(("dev", data),)))
        for f, data in functions.items()
    )
    tasks += scoring_tasks(folder / "calls")
    engine = EngineSpec(kind="module", build="toys:build")
    host = HostSpec(files.base, files.founders, engine, requests_for(tasks), memory_gib)
    return PoolSpec(host, tasks)
