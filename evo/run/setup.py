"""From a config to what a run is made of: tasks that are read and checked, and founders that fit."""

import json
import shutil
from collections.abc import Collection
from contextlib import suppress

from cluster.founders.adapters import is_adapter
from cluster.founders.checkpoints import CheckpointError, FounderSet, load_founders
from evo.algorithms import traits
from evo.config.schema import RunConfig, TaskConfig
from evo.errors import EvoError
from evo.run_dir import RunDir
from evo.search.objective import WeighedTask
from evo.vocabulary.align import Aligned, align, aligned_paths
from evo.vocabulary.files import check_agreement
from evo.vocabulary.write import TABLES_FILE
from fitness.engines import ENGINES, check_settings, engine_kind
from fitness.tasks.task import Task, TaskSpec, check_tasks_disjoint, load_task
from operators.build.architectures import architecture_of
from operators.tensors.weights import WeightsMismatchError


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


def open_founders(config: RunConfig, run_dir: RunDir) -> tuple[FounderSet, tuple[str, ...]]:
    """The founders of a new run, and what was done to their vocabularies, a line each.

    Where ``config.vocabulary`` asks for it and there is need, aligned checkpoints are written to
    ``run_dir/founders``, and their names to ``run_dir/aligned.json``. A failure leaves neither.

    Raises:
        EvoError: vocabularies differ and ``config.vocabulary`` is not set, or can't be aligned.
        CheckpointError, WeightsMismatchError: as `load_founders`.
    """
    run_dir.aligned_path.unlink(missing_ok=True)  # of a run that did not get to begin
    if config.vocabulary is None:
        check_agreement(config.base, config.founders)
        return load_founders(config.base, config.founders), ()
    out = run_dir.founders
    if out.is_dir() and all((f / TABLES_FILE).is_file() for f in out.iterdir()):
        shutil.rmtree(out)
    existed = run_dir.path.exists()
    try:
        aligned = align(config.founders, config.base, config.vocabulary, out)
        try:
            founders = _load_aligned(aligned, config)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
    except BaseException:
        if not existed:
            with suppress(OSError):
                run_dir.path.rmdir()
        raise
    if aligned.changed:
        names = json.dumps(aligned.changed) + "\n"
        run_dir.aligned_path.write_text(names, encoding="utf-8")
    return founders, aligned.notes


def _load_aligned(aligned: Aligned, config: RunConfig) -> FounderSet:
    try:
        return load_founders(aligned.base, aligned.models)
    except (CheckpointError, WeightsMismatchError) as error:
        # The aligned folders go: what is wrong is wrong in the originals.
        text = str(error)
        pairs = [(aligned.models[n], p) for n, p in config.founders.items()]
        for now, original in sorted([(aligned.base, config.base), *pairs], reverse=True):
            text = text.replace(str(now), str(original))
        raise type(error)(text) from error


def reopen_founders(config: RunConfig, run_dir: RunDir, used: Collection[str]) -> FounderSet:
    """The base and those founders named in ``used`` of the run in ``run_dir``, as it has aligned them.

    Raises:
        EvoError: one of them is gone; the message says which, and what to do.
        CheckpointError, WeightsMismatchError: as `load_founders`.
    """
    marker, out = run_dir.aligned_path, run_dir.founders
    changed = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else ()
    base, models = aligned_paths(config.founders, config.base, out, changed)
    models = {name: path for name, path in models.items() if name in used}
    for key, original, path in (
        ("base", config.base, base),
        *((f"founders.{n}", config.founders[n], path) for n, path in models.items()),
    ):
        if not original.exists():
            raise EvoError(
                f"{original}: no such checkpoint; it is {key} of the run in {run_dir.path}. Put it back, "
                f"or edit {key} in the {run_dir.config_path.name} there"
            )
        if not path.exists():
            raise EvoError(
                f"{path}: the aligned checkpoint that is {key} of the run is gone: restore it"
            )
    return load_founders(base, models)


def check_engine(config: RunConfig) -> None:
    """Load an engine of the user's own, and check its settings.

    Raises:
        EvoError: it can't be loaded, or does not take a setting.
    """
    try:
        check_settings(config.engine.spec)
    except EvoError as error:
        raise EvoError(f"engine.{error}") from error


def check_adapters(config: RunConfig) -> None:
    """Refuse to apply factors where no founder has any.

    Raises:
        EvoError: ``engine.adapters`` is ``apply``, and all founders are whole models.
    """
    if config.engine.adapters == "apply" and not any(map(is_adapter, config.founders.values())):
        raise EvoError(
            "engine.adapters: apply, but every founder is a whole model and none a LoRA adapter: leave "
            "it out, or name adapters of the base as founders"
        )


def check_paths(config: RunConfig) -> None:
    """Refuse a search over data-flow paths that no host could run, before anything is started.

    Raises:
        EvoError: the engine runs no paths, or the architecture of the base is not a known one.
    """
    if not traits(config.algorithm).paths:
        return
    if not engine_kind(config.engine.kind).paths:
        able = ", ".join(kind.name for kind in ENGINES.values() if kind.paths)
        raise EvoError(
            f"algorithm: {config.algorithm.name} searches the layers of language models, and "
            f"engine.kind: {config.engine.kind} runs no data-flow paths; use engine.kind: {able}"
        )
    path = config.base / "config.json"
    try:
        architecture_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EvoError(f"{path}: {error}") from error
