"""What may differ when a run is resumed: nothing that decides its results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cluster.founders.checkpoints import load_founders
from evo.config.loader import apply_override
from evo.config.schema import BudgetConfig, PoolConfig, RunConfig
from evo.errors import EvoError
from evo.run.autotune import with_autotuned
from evo.run.changes import changed_keys
from evo.run.fingerprint import fingerprint
from evo.run.setup import load_tasks, reopen_founders
from evo.run_dir import RunDir
from evo.trackers import TrackersConfig


@dataclass(frozen=True, slots=True)
class ResumeSettings:
    """What changes when a run is resumed; None: nothing.

    Attributes:
        evaluations: a larger budget, which extends the run.
    """

    pool: PoolConfig | None = None
    trackers: TrackersConfig | None = None
    evaluations: int | None = None


def settings_on_resume(run_dir: Path, overrides: Sequence[str]) -> ResumeSettings:
    """Return the run's settings with the changes in ``overrides``.

    Args:
        run_dir: a run's folder.
        overrides: ``KEY=VALUE`` each.

    Raises:
        EvoError: a key of another section, with which it would be another run; or a value that is not valid.
    """
    if not overrides:
        return ResumeSettings()
    config = RunDir(run_dir).read_config(check_files=False)
    data = config.model_dump(mode="json", include={"pool", "trackers", "budget"})
    for override in overrides:
        key = apply_override(data, override)
        if key[0] not in ("pool", "trackers") and list(key) != ["budget", "evaluations"]:
            raise EvoError(
                f"--set {override}: only budget.evaluations and keys of pool and trackers may change when a "
                "run is resumed; for any other start a new run"
            )
    try:
        pool = PoolConfig.model_validate(data["pool"])
        trackers = TrackersConfig.model_validate(data["trackers"])
        evaluations = BudgetConfig.model_validate(data["budget"]).evaluations
    except ValidationError as error:
        problem = error.errors()[0]
        sections = {BudgetConfig.__name__: "budget", PoolConfig.__name__: "pool"}
        section = sections.get(error.title, "trackers")
        name = ".".join([section, *(str(part) for part in problem["loc"])])
        raise EvoError(f"--set {name}: {problem['msg']}") from error
    changed = evaluations != config.budget.evaluations
    return ResumeSettings(pool, trackers, evaluations if changed else None)


def check_same_run(config: RunConfig, run_dir: Path, path: Path) -> None:
    """Refuse to resume the run in ``run_dir`` with the config read from ``path``, if it differs.

    Raises:
        EvoError: names what differs in config, tasks and founders.
    """
    then = RunDir(run_dir).read_manifest()
    old = RunDir(run_dir).read_config(check_files=False)
    config = with_autotuned(config, old)
    if config.vocabulary is None:
        founders = load_founders(config.base, config.founders)
    else:  # the run has aligned copies, made from those of the config
        founders = reopen_founders(old, RunDir(run_dir), set(old.founders))
    names = changed_keys(then, fingerprint(config, founders, load_tasks(config.tasks)))
    if names:
        raise EvoError(
            f"{run_dir}: holds a run of another config than {path}: {', '.join(names)} differ. "
            f"Choose another --run-dir, or resume that run with `evo resume {run_dir}`"
        )
