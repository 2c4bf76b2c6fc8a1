"""The pool of a run: of which kind it is, how it is started, and how users start one of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from cluster.founders.checkpoints import FounderSet
from cluster.host.scorer import requests_for
from cluster.jobs import HostSpec, PoolSpec
from cluster.local_pool import LocalPool
from evo.config.schema import PoolConfig, RunConfig
from evo.errors import EvoError
from evo.run.autotune import autotuned, with_autotuned
from evo.run.setup import load_tasks, open_founders, reopen_founders
from evo.run_dir import RunDir
from evo.search.objective import WeighedTask
from evo.search.rungs import rungs_of
from fitness.functions import is_importable

if TYPE_CHECKING:
    from cluster.ray.pool import RayPool

    StartedPool: TypeAlias = LocalPool | RayPool


def make_pool(config: RunConfig, run_dir: Path | str) -> "StartedPool":
    """Start the pool that a run of ``config`` in ``run_dir`` needs, for one or several searches.

    A run closes the pool that it starts itself, and leaves one that it is given open. So several runs of
    the same founders, tasks and engine can share the hosts of one pool, which then start once.

    Examples:
        >>> with evo.make_pool(config, "runs/first") as pool:
        ...     for seed in (1, 2):
        ...         config = config.model_copy(update={"seed": seed})
        ...         with evo.Evolution(config, f"runs/{seed}", pool=pool) as run:
        ...             for generation in run:
        ...                 print(seed, generation.best.fitness)

    Args:
        config: founders, tasks, ``engine``, ``racing`` and ``pool`` decide; the rest may differ between runs.
        run_dir: the run's folder, new or of a run to resume. Only checkpoints with aligned vocabularies
            (``config.vocabulary``) are written to it, so with these a pool serves the runs of this folder.

    Returns:
        A context manager that closes the pool; ``close()`` does the same and may be called twice.

    Raises:
        EvoError: ``engine.batch_tokens`` is ``auto`` and the run is new; the founders' vocabularies differ.
        CheckpointError, WeightsMismatchError, TaskError: founders or tasks can't be used.
        PoolError: the hosts can't be started.
    """
    folder = RunDir(Path(run_dir))
    tasks = load_tasks(config.tasks)
    if folder.has_run:
        config = with_autotuned(config, folder.read_config(check_files=False))
        founders = reopen_founders(config, folder, config.founders)
    elif config.engine.batch_tokens == "auto":
        raise EvoError(
            "engine.batch_tokens: auto is measured when a run starts, so the pool and its runs could get "
            "different values. Set engine.batch_tokens to a number to make a pool of your own"
        )
    else:
        founders, _ = open_founders(config, folder)
        config = autotuned(config, founders, tasks)
    return start_pool(config, founders, tasks, folder.path.resolve().name)


def pool_kind(config: RunConfig) -> Literal["ray", "local"]:
    """The kind of pool for ``config``: ``pool.kind``, or a default; see :class:`evo.PoolConfig`."""
    if config.pool.kind is not None:
        return config.pool.kind
    if config.pool != PoolConfig() or config.trackers.prometheus is not None:
        return "ray"
    if config.engine.device.startswith("cuda"):
        import torch

        return "ray" if torch.cuda.is_available() else "local"
    return "local"


def _check_importable(config: RunConfig) -> None:
    names = {f"tasks.{task.name}.metric": task.metric for task in config.tasks}
    names |= {"engine.kind": config.engine.kind, "engine.build": config.engine.build}
    for key, name in names.items():
        if not is_importable(name):
            raise EvoError(
                f"{key}: {name!r} exists in this process alone, and the hosts of a Ray pool are other "
                "processes. Define it at the top level of a module that they can import and give "
                "'package.module:name', or use pool.kind: local"
            )


def start_pool(
    config: RunConfig, founders: FounderSet, tasks: tuple[WeighedTask, ...], name: str = ""
) -> "StartedPool":
    """Start the pool for ``config`` and its hosts. ``name`` is the run's, for metrics.

    Raises:
        EvoError: the pool is of Ray, and a metric or engine is an object of this process alone.
        PoolError: the hosts can't be started.
    """
    plain = tuple(t.task for t in tasks)
    rungs = rungs_of(config.racing, plain)
    pool = config.pool
    host = HostSpec(
        founders.base,
        founders.founders,
        config.engine.spec,
        requests_for(plain, rungs.queries() if rungs else ()),
        pool.memory_gib,
    )
    spec = PoolSpec(host, plain)
    if pool_kind(config) == "local":
        return LocalPool(spec)
    _check_importable(config)
    from cluster.ray.pool import RayPool

    return RayPool(
        spec,
        hosts=None if pool.hosts == "auto" else pool.hosts,
        start_timeout_s=pool.start_timeout_s,
        deadline_s=pool.deadline_s,
        gpus=pool.gpus_per_host,
        labels=pool.labels,
        address=pool.address,
        shipping=pool.ship_founders,
        metrics=name if config.trackers.prometheus else None,
    )
