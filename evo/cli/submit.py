"""``evo submit``: a run as a job of a Ray cluster.

Standard output gets the job's id and nothing else, so that a script can read it; the job's own output
and all messages go to standard error.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from cluster.submit.dashboard import Dashboard

EXIT_INTERRUPTED, EXIT_STOPPED = 130, 143  # as of a process that SIGINT or SIGTERM ended


@click.command()
@click.argument(
    "config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--address", required=True, metavar="URL", help="http://HOST:8265, the dashboard.")
@click.option("--run-dir", metavar="DIR", help="On the cluster; default: ~/evo-runs/ID there.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key; repeats."
)
@click.option("--follow", "follows", is_flag=True, help="Print the job's output until it ends.")
@click.option("--attach", metavar="ID", help="Follow a job that was submitted before.")
@click.option("--stop", metavar="ID", help="End a job cleanly; its run can be resumed.")
@click.option("--fetch", type=click.Path(path_type=Path), help="Copy the run directory to here.")
@click.option("--insecure", is_flag=True, help="Use a cluster that everybody can use.")
def submit(
    config: Path | None,
    address: str,
    run_dir: str | None,
    overrides: tuple[str, ...],
    follows: bool,
    attach: str | None,
    stop: str | None,
    fetch: Path | None,
    insecure: bool,
) -> None:
    """Run CONFIG (YAML) as a job of a Ray cluster, which gets CONFIG's folder; print the job's id.

    With --attach or --stop, and no CONFIG: follow, fetch or end a job by its id.
    """
    if (config is not None) + (attach is not None) + (stop is not None) != 1:
        raise click.UsageError("give CONFIG, or --attach ID, or --stop ID")
    if config is None and (run_dir or overrides):
        raise click.UsageError("--run-dir and --set go with CONFIG")
    if config is not None and fetch and not follows:
        raise click.UsageError("--fetch goes with --follow, or later with --attach ID")
    if run_dir is not None and not Path(run_dir).is_absolute():
        raise click.UsageError(
            f"--run-dir {run_dir}: is a folder on the cluster: give an absolute path, on a disk that "
            "outlives the job"
        )
    from cluster.submit.dashboard import open_dashboard
    from cluster.submit.results import check_free

    if fetch is not None:
        check_free(fetch)
    dashboard = open_dashboard(address, insecure=insecure)
    if stop is not None:
        _stop(dashboard, stop, fetch)
    elif attach is not None:
        _follow(dashboard, attach, fetch)
    elif config is not None:
        job_id = _submit(dashboard, config, run_dir, overrides)
        if follows:
            _follow(dashboard, job_id, fetch)


@click.command("pack-run", hidden=True)
@click.argument("run_dir", type=click.Path(path_type=Path))
def pack_run(run_dir: Path) -> None:
    """Print RUN_DIR as text: the job on the cluster with which evo submit --fetch copies it."""
    from cluster.submit.results import packed

    click.echo(packed(run_dir.expanduser()), nl=False)


def _submit(
    dashboard: "Dashboard", config: Path, run_dir: str | None, overrides: Sequence[str]
) -> str:
    """Ship the config's folder, start the job, and return its id."""
    from cluster.submit.job import CONFIG, SCRIPT, default_run_dir, new_job_id, script, submit
    from cluster.submit.working_folder import pack
    from evo.config.relocate import relocate

    job_id = new_job_id(config.stem)
    place = str(Path(run_dir)) if run_dir else default_run_dir(job_id)
    relocated, notes = relocate(config, overrides)
    for note in notes:
        click.echo(note, err=True)
    with tempfile.TemporaryDirectory(prefix="evo-submit-") as temporary:
        package = Path(temporary) / "folder.zip"
        more = {
            CONFIG: json.dumps(relocated, indent=2).encode(),
            SCRIPT: script(place, version("evo-models")).encode(),
        }
        pack(config.resolve().parent, more, package)
        submit(dashboard, package, job_id, place)
    click.echo(job_id)
    sys.stdout.flush()
    click.echo(f"submitted; its run directory on the cluster is {place}", err=True)
    return job_id


def _stop(dashboard: "Dashboard", job_id: str, fetch: Path | None) -> None:
    from cluster.submit.job import stop

    end = stop(dashboard, job_id)
    click.echo(f"{job_id}: {end.status.lower()}", err=True)
    if fetch is not None:
        _fetch(dashboard, job_id, fetch)


def _fetch(dashboard: "Dashboard", job_id: str, out: Path) -> None:
    """Copy a job's run directory to ``out``: a second job prints it."""
    from cluster.submit.job import new_job_id, output_of, run_dir_of
    from cluster.submit.results import unpack

    place = run_dir_of(dashboard, job_id)
    text = output_of(dashboard, f"exec evo pack-run {quote(place)}", new_job_id("fetch"))
    unpack(text, out)
    click.echo(f"{place} -> {out}", err=True)


def _follow(dashboard: "Dashboard", job_id: str, fetch: Path | None) -> NoReturn:
    """Print a job's output until it ends, and exit as it did."""
    from cluster.errors import PoolError
    from cluster.submit.job import follow

    try:
        end = follow(dashboard, job_id, lambda text: click.echo(text, nl=False, err=True))
    except KeyboardInterrupt:
        again = f"--address {dashboard.address}"
        click.echo(
            f"\nNo longer following; {job_id} is still running. To follow it again: evo submit "
            f"--attach {job_id} {again}. To end it: evo submit --stop {job_id} {again}",
            err=True,
        )
        sys.exit(EXIT_INTERRUPTED)
    click.echo(f"{job_id}: {end.status.lower()}", err=True)
    if end.code and end.message:
        click.echo(end.message.splitlines()[0], err=True)
    if fetch is not None:
        try:
            _fetch(dashboard, job_id, fetch)
        except PoolError as error:
            if not end.code:
                raise
            click.echo(f"nothing fetched: {error}", err=True)  # the job's failure matters more
    sys.exit(EXIT_STOPPED if end.status == "STOPPED" else end.code)
