"""Runs as jobs of a Ray cluster: submit, follow, stop.

Ray deletes a job's working folder some time after the job, so the run directory is not in it. Ray keeps
what a job prints as one stream, which every client reads from its beginning.
"""

import asyncio
import re
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import PoolError
from cluster.submit.dashboard import Dashboard, job_client

STOP_WAIT_S = 60  # time for a stopped run to write its journal; then it is killed
START_WAIT_S = 30
SCRIPT = "evo-submit.sh"
CONFIG = "evo-submit.json"
NO_EVO, OTHER_EVO = 69, 70  # exit codes of the script
_RECONNECTS = 30
_RUN_DIR = "evo_run_dir"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended: its exit code as in a shell, and Ray's status and message."""

    code: int
    status: str
    message: str


def new_job_id(stem: str) -> str:
    """A unique id that contains the config's name."""
    return f"evo-{re.sub(r'[^A-Za-z0-9_-]+', '-', stem)[:40]}-{secrets.token_hex(4)}"


def default_run_dir(job_id: str) -> str:
    """The default run directory of a job, on the head; ``~`` is the home there."""
    return f"~/evo-runs/{job_id}"


def script(run_dir: str, version: str) -> str:
    """The job's shell script: checks that evo has the same version there, then becomes evo.

    So the signal that stops a job reaches evo, and evo's exit code is the job's. A new run starts in a copy
    of the working folder beside ``run_dir``: Ray deletes its own after the job, and resume and export
    need the founders.
    """
    place = shlex.quote(run_dir)
    if run_dir.startswith("~/"):
        place = f'"$HOME"/{shlex.quote(run_dir[2:])}'
    install = f"pip install evo-models=={version} where Ray runs, on every node"
    return f"""\
have=$(evo --version) || {{
    echo "Error: this cluster has no evo on the PATH that Ray was started with: {install}." >&2
    exit {NO_EVO}
}}
if [ "$have" != "evo, version {version}" ]; then
    echo "Error: this cluster has $have; the run was submitted by version {version}: {install}." >&2
    exit {OTHER_EVO}
fi
run={place}
if [ ! -e "$run/config.json" ]; then
    rm -rf "$run.files" && mkdir -p "$(dirname "$run")" && cp -R . "$run.files" &&
        cd "$run.files" || exit 1
fi
exec evo run {CONFIG} --run-dir "$run" --resume
"""


def submit(dashboard: Dashboard, package: Path, job_id: str, run_dir: str) -> None:
    """Submit the working folder ``package`` (a zip with `SCRIPT` in it) as the job ``job_id``.

    Raises:
        PoolError: the cluster refuses it.
    """
    with job_client(dashboard) as client:
        _submit(
            client,
            entrypoint=f"exec sh {SCRIPT}",
            submission_id=job_id,
            runtime_env={
                "working_dir": str(package),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
            metadata={_RUN_DIR: run_dir},
        )


def run_dir_of(dashboard: Dashboard, job_id: str) -> str:
    """The run directory of a job, on the cluster.

    Raises:
        PoolError: there is no such job, or evo did not submit it.
    """
    with job_client(dashboard) as client:
        found = (_details(client, job_id).metadata or {}).get(_RUN_DIR)
    if not found:
        raise PoolError(f"{job_id}: was not submitted by evo, so it has no run directory")
    return str(found)


def follow(dashboard: Dashboard, job_id: str, write: Callable[[str], None]) -> JobEnd:
    """Pass all that the job prints to ``write``, from its beginning, until it has ended.

    Raises:
        PoolError: there is no such job, or the connection can't be restored.
    """
    with job_client(dashboard) as client:
        _details(client, job_id)
        tail = _Tail(client, job_id, write)
        lost = 0  # times in a row
        while True:
            try:
                asyncio.run(tail.read())
                if _details(client, job_id).status.is_terminal():
                    return _end(client, job_id)
                lost = 0
            except (RuntimeError, OSError, _client_errors()) as error:
                lost += 1
                if lost == _RECONNECTS:
                    raise PoolError(
                        f"the connection is lost ({error}), and {job_id} continues. To follow it again: "
                        f"evo submit --attach {job_id} --address {dashboard.address}"
                    ) from error
            time.sleep(1)


def stop(dashboard: Dashboard, job_id: str) -> JobEnd:
    """Stop the job and wait until it has ended.

    Raises:
        PoolError: there is no such job, or it has ended already.
    """
    with job_client(dashboard) as client:
        if _details(client, job_id).status.is_terminal():
            status = _details(client, job_id).status
            raise PoolError(f"{job_id}: has ended already ({status})")
        client.stop_job(job_id)
        return _end(client, job_id)


def output_of(dashboard: Dashboard, entrypoint: str, job_id: str) -> str:
    """Run a short command on the head as the job ``job_id``; return what it printed.

    Raises:
        PoolError: it failed; contains the end of its output.
    """
    with job_client(dashboard) as client:
        _submit(client, entrypoint=entrypoint, submission_id=job_id)
        end = _end(client, job_id)
        output = str(client.get_job_logs(job_id))
    if end.code:
        last_lines = [line for line in output.splitlines() if line.strip()][-3:]
        raise PoolError(f"{job_id}: {' '.join(last_lines) or end.message}")
    return output


def _submit(client: Any, **job: Any) -> None:
    """Submit a job; wait for the job agent of a cluster that was just started."""
    until = time.monotonic() + START_WAIT_S
    while True:
        try:
            client.submit_job(**job)
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > until:
                raise PoolError(
                    "the cluster's head runs no jobs: its dashboard agent did not start. Another Ray on that "
                    "machine may have its port: start the head with --dashboard-agent-listen-port=PORT"
                ) from error
            time.sleep(0.5)
        else:
            return


@dataclass(slots=True)
class _Tail:
    """Reads what a job prints; skips what was read before a connection was lost."""

    client: Any
    job_id: str
    write: Callable[[str], None]
    written: int = 0  # characters

    async def read(self) -> None:
        met = 0
        async for text in self.client.tail_job_logs(self.job_id):
            new = text[max(0, self.written - met) :]
            met += len(text)
            if new:
                self.write(new)
                self.written = met


def _client_errors() -> type[Exception]:
    import aiohttp

    error: type[Exception] = aiohttp.ClientError
    return error


def _end(client: Any, job_id: str) -> JobEnd:
    """Wait for the job's end."""
    pause = 0.1
    while not (details := _details(client, job_id)).status.is_terminal():
        time.sleep(pause)
        pause = min(1.0, pause * 1.3)
    code = details.driver_exit_code
    if details.status == "SUCCEEDED":
        code = 0
    elif code is None or code == 0:
        code = 1
    if code < 0:  # ended by a signal
        code = 128 - code
    return JobEnd(code, str(details.status), str(details.message or ""))


def _details(client: Any, job_id: str) -> Any:
    if not _ID.fullmatch(job_id):
        raise PoolError(f"{job_id!r} is not the id of a job")
    try:
        return client.get_job_info(job_id)
    except RuntimeError as error:
        if "404" in str(error):
            raise PoolError(f"{job_id}: the cluster has no such job") from error
        raise
