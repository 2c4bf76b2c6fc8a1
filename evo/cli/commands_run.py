"""What ``evo run``, ``evo resume`` and ``evo status`` do: start, go on, and say where a run stands."""

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console

from cluster.founders.checkpoints import load_founders
from cluster.pool import PoolError
from evo.cli.progress import RunProgress
from evo.config.loader import apply_override, load_config
from evo.config.schema import PoolConfig, RunConfig
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage.summary import read_summary, results_table
from evo.run.autotune import with_autotuned
from evo.run.manifest import config_digests, founder_digests, read_start, task_digests
from evo.run.recovery import holds_run, read_config
from evo.run.setup import load_tasks
from evo.run.status import status_of
from evo.trackers import TrackersConfig

EXIT_TERMINATED = 143


def run_config(
    config: Path, run_dir: Path, overrides: Sequence[str], *, go_on: bool = False
) -> dict[str, Any]:
    """Run a config from founders to summary, with a live line, and print the final table.

    ``go_on``: a run of the same config that ``run_dir`` holds is resumed, and a finished one shown.
    """
    loaded = load_config(config, overrides)
    if loaded.pool.kind == "ray" and loaded.pool.address is not None:
        from cluster.ray.connect import check_cluster

        check_cluster(loaded.pool.address)  # a refusal should not wait for founders to be read
    if go_on and holds_run(run_dir):
        _check_same(loaded, run_dir, config)
        return resume_run(run_dir, loaded.pool, loaded.trackers, loaded.reuse)
    with _progress(loaded, run_dir) as progress:
        progress.note(f"starting {loaded.algorithm.name} on {len(loaded.founders)} founders")
        return _finish(Evolution(loaded, run_dir, observe=progress.observe), progress)


def resume_run(
    run_dir: Path,
    pool: PoolConfig | None = None,
    trackers: TrackersConfig | None = None,
    reuse: Sequence[Path] | None = None,
    *,
    repair: bool = False,
    accept_drift: bool = False,
) -> dict[str, Any]:
    """Go on with a run; one that has finished is only shown."""
    config = read_config(run_dir, check_files=False)
    if not repair and status_of(run_dir).state == "finished":
        summary = read_summary(run_dir)
        if summary is not None:
            _show(summary, run_dir, config)
            return summary
    with _progress(config, run_dir) as progress:
        progress.note("going on from what was recorded")
        evolution = Evolution.resume(
            run_dir,
            pool_settings=pool,
            trackers=trackers,
            reuse=reuse,
            accept_drift=accept_drift,
            repair=repair,
            observe=progress.observe,
        )
        return _finish(evolution, progress)


def resume_settings(
    run_dir: Path, overrides: Sequence[str]
) -> tuple[PoolConfig | None, TrackersConfig | None]:
    """The run's ``pool`` and ``trackers`` with changes; None each without.

    Raises:
        EvoError: a key of something else: it would make another run of this one.
    """
    if not overrides:
        return None, None
    config = read_config(run_dir, check_files=False)
    data = config.model_dump(mode="json", include={"pool", "trackers"})
    for override in overrides:
        key = apply_override(data, override)
        if key[0] not in ("pool", "trackers"):
            raise EvoError(
                f"--set {override}: only keys of pool and trackers may change when a run goes on; for any "
                "other begin a new run"
            )
    try:
        pool = PoolConfig.model_validate(data["pool"])
        return pool, TrackersConfig.model_validate(data["trackers"])
    except ValidationError as error:
        problem = error.errors()[0]
        section = "pool" if error.title == PoolConfig.__name__ else "trackers"
        name = ".".join([section, *(str(part) for part in problem["loc"])])
        raise EvoError(f"--set {name}: {problem['msg']}") from error


def print_status(run_dir: Path, *, as_json: bool) -> None:
    """Say where a run stands; also while it runs."""
    found = status_of(run_dir)
    click.echo(json.dumps(found.as_json()) if as_json else found.describe())


def _check_same(config: RunConfig, run_dir: Path, path: Path) -> None:
    start = read_start(run_dir)
    old = read_config(run_dir, check_files=False)
    config = with_autotuned(config, old)
    now = {"config": config_digests(config), "tasks": task_digests(load_tasks(config.tasks))}
    moved = (old.base, old.founders) != (config.base, config.founders)
    if moved and config.vocabulary is None:  # else those of the run are aligned ones, made of these
        now["founders"] = founder_digests(load_founders(config.base, config.founders))
    names = sorted(
        f"founders.{key}" if section == "founders" and key != "base" else key
        for section, found in now.items()
        for key in found.keys() | start[section].keys()
        if found.get(key) != start[section].get(key)
    )
    if names:
        raise EvoError(
            f"{run_dir}: holds a run of another config than {path}: {', '.join(names)} differ. Choose another "
            f"--run-dir, or go on with `evo resume {run_dir}`"
        )


def _finish(evolution: Evolution, progress: RunProgress) -> dict[str, Any]:
    with evolution:
        _end_on_signal()  # again: Ray sets its own
        for generation in evolution:
            if not evolution.replays:
                progress.generation(generation)
        progress.note("scoring winner and baselines on test")
        summary = evolution.finish()
    progress.stop()
    for note in evolution.notes:
        Console().print(f"vocabulary: {note}", highlight=False, soft_wrap=True, markup=False)
    for note in evolution.reused:
        Console().print(f"reuse: {note}", highlight=False, soft_wrap=True, markup=False)
    _show(summary, evolution.run_dir, evolution.config)
    return summary


def _show(summary: dict[str, Any], run_dir: Path, config: RunConfig) -> None:
    console = Console()
    console.print(results_table(summary, f"{', '.join(t.name for t in config.tasks)}: {run_dir}"))
    console.print(
        f"{summary['evaluations']} evaluations{_examples(summary)} in "
        f"{summary['time']['search_s']:.1f} s, "
        f"stopped by {summary['stopped_by']}; winner {summary['winner']['id'][:12]}; "
        f"{run_dir / 'summary.json'}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"to see what happened: evo report {run_dir}", highlight=False, soft_wrap=True)


def _examples(summary: Mapping[str, Any]) -> str:
    """Of runs before there was racing nothing is known."""
    return f" on {summary['examples']} dev examples" if "examples" in summary else ""


@contextmanager
def _progress(config: RunConfig, run_dir: Path) -> Iterator[RunProgress]:
    """The live line; and when the run is interrupted, what to do next."""
    _end_on_signal()
    try:
        with RunProgress(config.budget) as progress:
            yield progress
    except (KeyboardInterrupt, SystemExit, OSError, PoolError):
        if holds_run(run_dir):
            click.echo(
                f"Stopped. Nothing that was evaluated is lost: evo resume {run_dir}", err=True
            )
        raise


def _end_on_signal() -> None:
    """Let SIGTERM unwind the stack, so that hosts are let go."""

    def end(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, end)
