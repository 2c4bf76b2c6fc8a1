"""From a config to what a run is made of: tasks that are read and checked, and a pool that runs."""

import shutil
from pathlib import Path

from cluster.founders import FounderSet, load_founders
from cluster.jobs import EngineSpec, HostSpec, PoolSpec
from cluster.pool import LocalPool, Pool
from cluster.resources import cores
from cluster.scorer import requests_for
from evo.config import EngineConfig, PoolConfig, RunConfig, TaskConfig
from evo.evaluation import WeighedTask
from evo.vocabulary_align import align, aligned_paths
from evo.vocabulary_files import check_agreement
from evo.vocabulary_write import TABLES_FILE
from fitness.tasks import Task, TaskSpec, check_tasks_disjoint, load_task


def load_tasks(configs: tuple[TaskConfig, ...]) -> tuple[WeighedTask, ...]:
    """Read and check the tasks' files.

    Raises:
        TaskError: names the file, the line and the key.
    """
    tasks = tuple(WeighedTask(_load_task(c), c.weight) for c in configs)
    check_tasks_disjoint([t.task for t in tasks])
    return tasks


def _load_task(config: TaskConfig) -> Task:
    return load_task(
        TaskSpec(
            name=config.name,
            metric=config.metric,
            files=tuple((split, str(path)) for split, path in config.files.items()),
            data=tuple(config.data.items()),
            limits=tuple(config.limit.items()),
            max_tokens=config.max_tokens,
            stop=config.stop,
            regex=config.regex,
            chat=config.chat,
            end=config.end,
            temperature=config.temperature,
        )
    )


def open_founders(config: RunConfig, run_dir: Path) -> tuple[FounderSet, tuple[str, ...]]:
    """The founders of a new run, and what was done to their vocabularies, a line each.

    Where ``config.vocabulary`` asks for it and there is need, aligned checkpoints are written to
    ``run_dir/founders``.

    Raises:
        UserError: vocabularies differ and ``config.vocabulary`` is not set, or can't be aligned.
        CheckpointError, WeightsMismatchError: as `load_founders`.
    """
    if config.vocabulary is None:
        check_agreement(config.base, config.founders)
        return load_founders(config.base, config.founders), ()
    out = _aligned_folder(run_dir)
    if out.is_dir() and all((f / TABLES_FILE).is_file() for f in out.iterdir()):
        shutil.rmtree(out)  # of a run that did not get to begin
    aligned = align(config.founders, config.base, config.vocabulary, out)
    try:
        return load_founders(aligned.base, aligned.models), aligned.notes
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def reopen_founders(config: RunConfig, run_dir: Path) -> FounderSet:
    """The founders of the run in ``run_dir``, as it has aligned them.

    Raises:
        CheckpointError, WeightsMismatchError: as `load_founders`.
    """
    return load_founders(*aligned_paths(config.founders, config.base, _aligned_folder(run_dir)))


def _aligned_folder(run_dir: Path) -> Path:
    return run_dir.resolve() / "founders"


def make_pool(config: RunConfig, founders: FounderSet, tasks: tuple[WeighedTask, ...]) -> Pool:
    """The pool that ``config.pool`` asks for, its hosts started."""
    plain = tuple(t.task for t in tasks)
    host = HostSpec(
        founders.base, founders.founders, _engine_spec(config.engine), requests_for(plain)
    )
    spec = PoolSpec(host, plain)
    wanted: PoolConfig = config.pool
    if wanted.kind == "local":
        return LocalPool(spec)
    from cluster.ray_pool import RayPool

    hosts = wanted.hosts or max(1, cores() // config.engine.threads)
    return RayPool(spec, hosts=hosts, start_timeout_s=wanted.start_timeout_s)


def _engine_spec(config: EngineConfig) -> EngineSpec:
    return EngineSpec(**config.model_dump())
