"""What may differ when a run is resumed: nothing that decides its results."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from cluster.founders.checkpoints import load_founders
from evo.config.loader import apply_override
from evo.config.schema import PoolConfig, RunConfig
from evo.errors import EvoError
from evo.run.autotune import with_autotuned
from evo.run.manifest import config_digests, founder_digests, read_start, task_digests
from evo.run.recovery import read_config
from evo.run.setup import load_tasks
from evo.trackers import TrackersConfig


def settings_on_resume(
    run_dir: Path, overrides: Sequence[str]
) -> tuple[PoolConfig | None, TrackersConfig | None]:
    """The run's ``pool`` and ``trackers`` with changes; None each without.

    Args:
        run_dir: a run's folder.
        overrides: ``KEY=VALUE`` each.

    Raises:
        EvoError: a key of another section, with which it would be another run; or a value that is not valid.
    """
    if not overrides:
        return None, None
    config = read_config(run_dir, check_files=False)
    data = config.model_dump(mode="json", include={"pool", "trackers"})
    for override in overrides:
        key = apply_override(data, override)
        if key[0] not in ("pool", "trackers"):
            raise EvoError(
                f"--set {override}: only keys of pool and trackers may change when a run is resumed; "
                "for any other start a new run"
            )
    try:
        pool = PoolConfig.model_validate(data["pool"])
        return pool, TrackersConfig.model_validate(data["trackers"])
    except ValidationError as error:
        problem = error.errors()[0]
        section = "pool" if error.title == PoolConfig.__name__ else "trackers"
        name = ".".join([section, *(str(part) for part in problem["loc"])])
        raise EvoError(f"--set {name}: {problem['msg']}") from error


def check_same_run(config: RunConfig, run_dir: Path, path: Path) -> None:
    """Refuse to resume the run in ``run_dir`` with the config read from ``path``, if it differs.

    Raises:
        EvoError: names what differs in config, tasks and founders.
    """
    start = read_start(run_dir)
    old = read_config(run_dir, check_files=False)
    config = with_autotuned(config, old)
    now = {"config": config_digests(config), "tasks": task_digests(load_tasks(config.tasks))}
    moved = (old.base, old.founders) != (config.base, config.founders)
    # With a vocabulary the run's founders are aligned checkpoints, made from those of the config.
    if moved and config.vocabulary is None:
        now["founders"] = founder_digests(load_founders(config.base, config.founders))
    names = sorted(
        f"founders.{key}" if section == "founders" and key != "base" else key
        for section, found in now.items()
        for key in found.keys() | start[section].keys()
        if found.get(key) != start[section].get(key)
    )
    if names:
        raise EvoError(
            f"{run_dir}: holds a run of another config than {path}: {', '.join(names)} differ. "
            f"Choose another --run-dir, or resume that run with `evo resume {run_dir}`"
        )
