"""evo submit: a run as a job of a cluster. And what evo run does before it joins one.

Standard output gets the job's id and nothing else; what the job prints, and what there is to say
about it, goes to standard error.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

import click

from cluster.errors import PoolError
from cluster.submit.dashboard import Dashboard, open_dashboard
from cluster.submit.job import (
    CONFIG,
    SCRIPT,
    default_run_dir,
    follow,
    new_job_id,
    output_of,
    run_dir_of,
    script,
    stop,
    submit,
)
from cluster.submit.results import check_free, packed, unpack
from cluster.submit.working_folder import is_left_out, pack
from evo.errors import EvoError

INTERRUPTED, STOPPED = 130, 143  # exit codes of a process that SIGINT or SIGTERM ended


def joined(address: str) -> tuple[str, ...]:
    """Overrides that make a config's pool join the cluster at ``address``, which takes us.

    Raises:
        PoolError: within two seconds, if it does not; says why.
    """
    from cluster.ray.connect import check_cluster

    check_cluster(address)
    return ("pool.kind=ray", f"pool.address={json.dumps(address)}")


def submit_config(
    config: Path,
    address: str,
    *,
    run_dir: str | None,
    overrides: Sequence[str],
    insecure: bool,
    follows: bool,
    fetch: Path | None,
) -> None:
    """Ship the config's folder and run it there; print the job's id."""
    if run_dir is not None and not Path(run_dir).is_absolute():
        raise EvoError(
            f"--run-dir {run_dir}: is a folder on the cluster: give an absolute path, on a disk that "
            "outlives the job"
        )
    if fetch is not None:
        check_free(fetch)
    dashboard = open_dashboard(address, insecure=insecure)
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
    click.echo(f"submitted; its run folder on the cluster is {place}", err=True)
    if follows:
        _follow(dashboard, job_id, fetch)


def attach(job_id: str, address: str, *, insecure: bool, stops: bool, fetch: Path | None) -> None:
    """Follow a job that was submitted before, or stop it; then fetch its run folder."""
    if fetch is not None:
        check_free(fetch)
    dashboard = open_dashboard(address, insecure=insecure)
    if not stops:
        _follow(dashboard, job_id, fetch)
        return
    end = stop(dashboard, job_id)
    click.echo(f"{job_id}: {end.status.lower()}", err=True)
    if fetch is not None:
        fetch_run(dashboard, job_id, fetch)


def fetch_run(dashboard: Dashboard, job_id: str, out: Path) -> None:
    """Bring a job's run folder back: a second job prints it."""
    place = run_dir_of(dashboard, job_id)
    text = output_of(dashboard, f"exec evo pack-run {quote(place)}", new_job_id("fetch"))
    unpack(text, out)
    click.echo(f"{place} -> {out}", err=True)


def print_packed(run_dir: Path) -> None:
    """What the second job does, on the cluster."""
    click.echo(packed(run_dir.expanduser()), nl=False)


def _follow(dashboard: Dashboard, job_id: str, fetch: Path | None) -> NoReturn:
    try:
        end = follow(dashboard, job_id, lambda text: click.echo(text, nl=False, err=True))
    except KeyboardInterrupt:
        again = f"--address {dashboard.address}"
        click.echo(
            f"\nNo longer following; {job_id} goes on. To follow it again: evo submit --attach {job_id} "
            f"{again}. To end it: evo submit --stop {job_id} {again}",
            err=True,
        )
        sys.exit(INTERRUPTED)
    click.echo(f"{job_id}: {end.status.lower()}", err=True)
    if end.code and end.message:
        click.echo(end.message.splitlines()[0], err=True)
    if fetch is not None:
        try:
            fetch_run(dashboard, job_id, fetch)
        except PoolError as error:
            if not end.code:
                raise
            click.echo(f"nothing fetched: {error}", err=True)  # the job's own end matters more
    sys.exit(STOPPED if end.status == "STOPPED" else end.code)


def relocate(config: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The config as it is to be on the cluster, in the shipped folder; and what has to be said of it.

    A path within the config's folder is shipped and becomes relative. Any other becomes absolute,
    and must be there on the cluster.

    Raises:
        EvoError: the config is wrong, or a path in the folder is not there or is not shipped whole.
    """
    from evo.config.loader import load_config

    loaded = load_config(config, overrides, check_files=False)
    data = loaded.model_dump(mode="json")
    folder = config.resolve().parent
    elsewhere: list[str] = []

    def moved(key: str, text: str) -> str:
        path = Path(text).resolve()
        if not path.is_relative_to(folder):
            elsewhere.append(f"{key}: {path}")
            return str(path)
        inside = path.relative_to(folder)
        if not path.exists():
            raise EvoError(f"{config}: {key}: no such file or folder: {path}")
        if is_left_out(inside):
            raise EvoError(
                f"{config}: {key}: {path} would not be shipped: hidden folders and folders named "
                f"{inside.parts[0]!r} are left out. Move it, or put it outside of {folder}, where the "
                "cluster sees it too"
            )
        for file in path.rglob("*"):
            if file.is_file() and not file.resolve().is_relative_to(folder):
                raise EvoError(
                    f"{config}: {key}: {file} is a link that leads out of {folder}, and would not be shipped. "
                    "Put the file itself there, or name the folder that it is in"
                )
        return inside.as_posix()

    data["root"] = "."
    data["base"] = moved("base", data["base"])
    data["founders"] = {n: moved(f"founders.{n}", p) for n, p in data["founders"].items()}
    for task in data["tasks"]:
        task["files"] = {s: moved(f"{task['name']}.{s}", p) for s, p in task["files"].items()}
    elsewhere += [f"reuse: {path}" for path in data["reuse"]]
    pool = {**data["pool"], "kind": "ray", "address": "auto"}
    data["pool"] = pool | {"hosts": pool["hosts"] or "auto"}
    notes = [f"not shipped, must be on the cluster at the same path: {e}" for e in elsewhere]
    return data, notes
