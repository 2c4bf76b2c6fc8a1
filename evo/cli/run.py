"""``evo run`` and ``evo resume``: run a config from founders to summary, with a live line."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo.run_dir import RunDir
from evo.run_dir.summary import RunSummary

if TYPE_CHECKING:
    from evo.cli.run_progress import RunProgress
    from evo.config.schema import BudgetConfig, RunConfig
    from evo.evolution import Evolution
    from evo.run.resume import ResumeSettings

EXIT_TERMINATED = 143


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), help="Default: runs/CONFIG's name.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key; repeats."
)
@click.option("--address", metavar="auto|HOST:PORT", help="Join the Ray cluster there.")
@click.option(
    "--resume", "resumes", is_flag=True, help="Resume if --run-dir holds a run of this CONFIG."
)
@click.option(
    "--reuse",
    multiple=True,
    metavar="DIR",
    help="Take evaluations from that run, not from those in the config's reuse; repeats.",
)
def run(
    config: Path,
    run_dir: Path | None,
    overrides: tuple[str, ...],
    address: str | None,
    resumes: bool,
    reuse: tuple[str, ...],
) -> None:
    """Evolve as CONFIG (YAML) says, and print the table of winner and baselines."""
    if resumes and run_dir is None:
        raise click.UsageError("--resume needs --run-dir")
    if address is not None:
        overrides += _joining(address)
    from evo.files import free_folder

    folder = run_dir or free_folder(Path("runs") / config.stem)
    if reuse:
        overrides += (f"reuse={json.dumps([str(Path(d).absolute()) for d in reuse])}",)
    run_config(config, folder, overrides, resumes=resumes)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change budget.evaluations, or a key of pool or trackers; repeats.",
)
@click.option("--address", metavar="auto|HOST:PORT", help="Join the Ray cluster there.")
@click.option("--repair", is_flag=True, help="Set damaged files aside and evaluate again.")
@click.option("--accept-drift", is_flag=True, help="Resume though code or versions have changed.")
def resume(
    run_dir: Path,
    overrides: tuple[str, ...],
    address: str | None,
    repair: bool,
    accept_drift: bool,
) -> None:
    """Resume the run in RUN_DIR: it ends as if it had never stopped.

    With --set budget.evaluations=N, a run that has finished continues, too, and test is scored again.
    """
    if address is not None:
        overrides += _joining(address)
    from evo.run.resume import settings_on_resume

    settings = settings_on_resume(run_dir, overrides)
    resume_run(run_dir, settings, repair=repair, accept_drift=accept_drift)


def _joining(address: str) -> tuple[str, ...]:
    """Overrides that make a run's pool join the cluster at ``address``, which was found to accept us.

    Raises:
        PoolError: within two seconds, if it does not; says why.
    """
    from cluster.ray.connect import check_cluster

    check_cluster(address)
    return ("pool.kind=ray", f"pool.address={json.dumps(address)}")


def run_config(
    config: Path, run_dir: Path, overrides: Sequence[str] = (), *, resumes: bool = False
) -> RunSummary:
    """Run a config from founders to summary, print the table of results, and return the summary.

    With ``resumes``, a run of the same config in ``run_dir`` is resumed; a finished one is shown.
    """
    from evo.config.loader import load_config
    from evo.evolution import Evolution
    from evo.run.resume import ResumeSettings, check_same_run

    loaded = load_config(config, overrides)
    if loaded.pool.kind != "local" and loaded.pool.address is not None:
        from cluster.ray.connect import check_cluster

        check_cluster(loaded.pool.address)  # before the founders are read, which takes longer
    if resumes and RunDir(run_dir).has_run:
        check_same_run(loaded, run_dir, config)
        return resume_run(run_dir, ResumeSettings(loaded.pool, loaded.trackers), loaded.reuse)
    with _progress(loaded.budget, run_dir) as progress:
        progress.note(f"starting {loaded.algorithm.name} on {len(loaded.founders)} founders")
        return _finish(Evolution(loaded, run_dir, observe=progress.observe), progress)


def resume_run(
    run_dir: Path,
    settings: "ResumeSettings | None" = None,
    reuse: Sequence[Path] | None = None,
    *,
    repair: bool = False,
    accept_drift: bool = False,
) -> RunSummary:
    """Resume a run and return its summary; one that has finished is only shown."""
    from evo.evolution import Evolution
    from evo.report.status import read_status
    from evo.run.resume import ResumeSettings

    settings = settings or ResumeSettings()
    config = RunDir(run_dir).read_config(check_files=False)
    if settings.evaluations is None and not repair and read_status(run_dir).state == "finished":
        summary = RunDir(run_dir).read_summary()
        if summary is not None:
            _show(summary, run_dir, config)
            return summary
    budget = config.budget
    if settings.evaluations is not None:
        budget = budget.model_copy(update={"evaluations": settings.evaluations})
    with _progress(budget, run_dir) as progress:
        progress.note("replaying what was recorded")
        evolution = Evolution.resume(
            run_dir,
            pool_settings=settings.pool,
            trackers=settings.trackers,
            evaluations=settings.evaluations,
            reuse=reuse,
            accept_drift=accept_drift,
            repair=repair,
            observe=progress.observe,
        )
        return _finish(evolution, progress)


def _finish(evolution: "Evolution", progress: "RunProgress") -> RunSummary:
    from evo.cli.terminal import console

    with evolution:
        _exit_on_sigterm()  # again: Ray has set its own handler
        for generation in evolution:
            if not evolution.replays:
                progress.generation(generation)
        progress.note("scoring winner and baselines on test")
        summary = evolution.finish()
    progress.stop()
    for note in evolution.notes:
        console().print(f"vocabulary: {note}", markup=False)
    for note in evolution.reused:
        console().print(f"reuse: {note}", markup=False)
    _show(summary, evolution.run_dir, evolution.config)
    return summary


def _show(summary: RunSummary, run_dir: Path, config: "RunConfig") -> None:
    from rich.console import Console

    from evo.cli.results_table import results_table
    from evo.cli.terminal import console

    title = f"{', '.join(t.name for t in config.tasks)}: {run_dir}"
    Console().print(results_table(summary, title))
    console().print(
        f"{summary.evaluations} evaluations on {summary.examples} dev examples in "
        f"{summary.time.search_s:.1f} s, stopped by {summary.stopped_by}; "
        f"winner {summary.winner_id[:12]}; {RunDir(run_dir).summary_path}"
    )
    console().print(f"to see what happened: evo report {run_dir}")


@contextmanager
def _progress(budget: "BudgetConfig", run_dir: Path) -> Iterator["RunProgress"]:
    """The live line of a run. If the run is interrupted, say how to resume it."""
    from cluster.errors import PoolError
    from evo.cli.run_progress import RunProgress

    _exit_on_sigterm()
    try:
        with RunProgress(budget) as progress:
            yield progress
    except (KeyboardInterrupt, SystemExit, OSError, PoolError):
        if RunDir(run_dir).has_run:
            click.echo(f"Stopped. All evaluations so far are kept: evo resume {run_dir}", err=True)
        raise


def _exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that hosts are stopped on the way out."""

    def end(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, end)
