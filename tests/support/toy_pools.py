"""What pools of toys are made of: toy founders, a task for each behaviour, and jobs."""

from pathlib import Path

from toys import scoring_tasks, write_founders

from cluster.founders.checkpoints import load_founders
from cluster.host.scorer import requests_for
from cluster.jobs import EngineSpec, HostSpec, Job, PoolSpec, Query
from fitness.tasks.task import TaskSpec, load_task

FUNCTIONS = (
    "nearness",
    "slow_for_a",
    "broken_for_b",
    "deadly",
    "once_deadly",
    "overflows",
    "naps",
    "thread_count",
)


def make_spec(folder: Path) -> PoolSpec:
    """The toy founders, and a task for each function; ``once_deadly`` remembers in ``folder``."""
    paths = write_founders(folder)
    files = load_founders(paths.pop("base"), paths)
    data = {"once_deadly": str(folder / "marker"), "naps": "0.02"}
    tasks = tuple(
        load_task(TaskSpec(name=f, metric=f"toys:{f}", data=(("dev", data.get(f, "dev")),)))
        for f in FUNCTIONS
    )
    engine = EngineSpec(kind="module", build="toys:build")
    tasks += scoring_tasks(folder / "calls")
    return PoolSpec(HostSpec(files.base, files.founders, engine, requests_for(tasks)), tasks)


def jobs_for(spec: PoolSpec, function: str = "nearness", recipes=None) -> list[Job]:
    founders = [f.founder for f in spec.host.founders]
    return [Job(r, (Query(function, "dev"),)) for r in recipes or founders]


def fault_spec(folder: Path, memory_gib: float | None = None) -> PoolSpec:
    """The toy founders, and tasks whose evaluation hangs, naps or takes too much memory."""
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
