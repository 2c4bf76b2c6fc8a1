"""Runs on a cluster as people start one: joined, submitted, followed, stopped, and refused."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests
import yaml
from cluster_processes import ClusterProcesses, environment
from patience import PATIENCE_S
from places import BIN, EXAMPLES, SUPPORT
from toys import write_founders

from cluster.errors import PoolError
from cluster.submit.dashboard import job_client, open_dashboard
from cluster.submit.job import NO_EVO, OTHER_EVO, new_job_id, script
from cluster.submit.working_folder import pack
from evo.config.relocate import relocate
from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage

pytest.importorskip("aiohttp", reason="needs the extra `cluster`: ray[default]")

GATE = """
import time
from pathlib import Path
from toys import nearness as quick

FOLDER = Path({folder!r})

def nearness(module, split):
    calls = FOLDER / "calls"
    with calls.open("ab") as file:
        file.write(b".")
    while calls.stat().st_size > 10 and not (FOLDER / "go").exists():
        time.sleep(0.05)
    return quick(module, split)
"""
GATED = {
    "name": "toy",
    "metric": "gate:nearness",
    "data": {"dev": "dev", "select": "select", "test": "test"},
}


def write_project(folder: Path, **changes: object) -> Path:
    """A folder as a user has it: founders, a config, and the functions that it names.

    With the task GATED, the run stops after its first generation until there is a file ``go``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_founders(folder / "founders")
    (folder / "toys.py").write_text((SUPPORT / "toys.py").read_text())
    (folder / "gate.py").write_text(GATE.format(folder=str(folder)))
    data = {
        "base": "founders/base.safetensors",
        "founders": {n: f"founders/{n}.safetensors" for n in paths if n != "base"},
        "engine": {"kind": "module", "build": "toys:build"},
        "tasks": [
            {
                "name": "toy",
                "metric": "toys:nearness",
                "data": {"dev": "dev", "select": "select", "test": "test"},
            }
        ],
        "algorithm": "genome_plus",
        "pool": {"hosts": 2},
        "budget": {"evaluations": 40},
        **changes,
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(data))
    return folder / "toy.yaml"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path_factory.mktemp("cluster"), workers=2)
    yield cluster
    cluster.close()


@pytest.fixture
def evo(tmp_path, cluster):
    """The real command in a process of its own; ``env`` defaults to that of a user with the token."""

    def evo(*arguments: object, env: dict[str, str] | None = None, cwd: Path = tmp_path):
        done = subprocess.run(
            [BIN / "evo", *map(str, arguments)],
            env=env or cluster.users(),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return SimpleNamespace(
            code=done.returncode,
            out=done.stdout,
            err=done.stderr,
        )

    return evo


def stranger(folder: Path, **more: str) -> dict[str, str]:
    """The environment of somebody without the token."""
    return environment(HOME=str(folder), **more)


def follower(
    cluster: ClusterProcesses, *arguments: object, address: str = ""
) -> subprocess.Popen[str]:
    where = ("--address", address or cluster.dashboard, "--follow")
    return subprocess.Popen(
        [BIN / "evo", "submit", *map(str, arguments), *where],
        env=cluster.users(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the follower printed until a line has ``pattern``."""
    met = ""
    assert process.stderr is not None
    for line in process.stderr:
        met += line
        if re.search(pattern, line):
            return met
    raise AssertionError(f"never said {pattern!r}: {met}")


def refusal(evo, *arguments: object, env: dict[str, str]) -> SimpleNamespace:
    """What the command says, before it has taken time to load what runs models."""
    done = evo(*arguments, env=env | {"PYTHONPROFILEIMPORTTIME": "1"})
    lines = done.err.splitlines(keepends=True)
    imports = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "evo.cli" in imports
    assert not imports & {"torch", "transformers", "pandas"}
    done.err = "".join(line for line in lines if not line.startswith("import time:"))
    return done


WAYS_IN = {
    "submit": lambda c, config: ("submit", config, "--address", c.dashboard),
    "run": lambda c, config: ("run", config, "--address", c.gcs),
}


@pytest.mark.parametrize("way", WAYS_IN)
@pytest.mark.parametrize(
    ("token", "why"),
    [
        ({}, "wants a token, and none was found"),
        ({"RAY_AUTH_TOKEN": "a" * 64}, "refuses the token"),
    ],
    ids=["none", "wrong"],
)
def test_without_the_token_refused_before_anything_is_loaded(
    evo, cluster, tmp_path, way, token, why
):
    config = write_project(tmp_path / "project")
    words, env = WAYS_IN[way](cluster, config), stranger(tmp_path, **token)
    done = refusal(evo, *words, env=env)
    assert done.code == 2
    assert done.out == ""
    assert why in done.err
    assert "~/.ray/auth_token" in done.err  # what to do
    assert "Traceback" not in done.err
    assert "a" * 64 not in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("way", ["submit", "run"])
def test_nobody_there_is_said_before_anything_is_loaded(evo, cluster, tmp_path, way):
    env = cluster.users()
    config = write_project(tmp_path / "project")
    with socket.socket() as silent:  # listens and never answers
        silent.bind(("127.0.0.1", 0))
        closed = silent.getsockname()[1]
        address = f"http://127.0.0.1:{closed}" if way == "submit" else f"127.0.0.1:{closed}"
        done = refusal(evo, way, config, "--address", address, env=env)
        assert (done.code, "answers there" in done.err) == (2, True)
        if way == "run":
            silent.listen()
            done = refusal(evo, way, config, "--address", address, env=env)
            assert (done.code, "no Ray cluster answers there" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("way", "address", "says"),
    [
        ("submit", "127.0.0.1:6379", "expected the cluster's dashboard"),
        ("submit", "http://me:hidden@127.0.0.1:8265", "expected the cluster's dashboard"),
        ("submit", "http://[", "expected the cluster's dashboard"),
        ("run", "http://127.0.0.1:8265", "for evo submit"),
        ("run", "ray://127.0.0.1:10001", "ray://"),
        ("run", "local", "not the address of a cluster"),
        ("run", ":6379", "not the address of a cluster"),
        ("run", "", "not the address of a cluster"),
    ],
)
def test_the_other_commands_address_is_told_apart(evo, tmp_path, way, address, says):
    done = evo(way, write_project(tmp_path / "project"), "--address", address)
    assert (done.code, says in done.err) == (2, True)
    assert "hidden" not in done.err
    assert "Traceback" not in done.err


class Tunnel:
    """A way to a port that can be cut, as one by ssh is when a laptop sleeps."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones are possible."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._door.close()
        self.cut()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def winner_of(run: Path) -> dict[str, object]:
    winner: dict[str, object] = json.loads((run / "summary.json").read_text())["winner"]
    return winner


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory) -> Path:
    """A plain run, for a user who has a cluster and a token that is none: its Ray is its own."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = write_project(folder / "project")
    env = cluster.users(RAY_ADDRESS=cluster.gcs) | {"RAY_AUTH_TOKEN_PATH": "/nonexistent"}
    words = ("run", config, "--run-dir", folder / "run", "--set", "pool.hosts=1")
    subprocess.run([BIN / "evo", *map(str, words)], env=env, check=True, timeout=PATIENCE_S)
    token = cluster.token.read_text()
    answer = requests.get(
        f"{cluster.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert answer.json() == []
    return folder / "run"


@pytest.mark.slow
def test_a_lost_node_and_a_lost_connection_cost_time_and_nothing_else(
    cluster, undisturbed, tmp_path
):
    """Submit, follow, SIGKILL a worker's raylet in mid-run, finish with the undisturbed result."""
    project = tmp_path / "project"
    config = write_project(project, tasks=[GATED], pool={"hosts": "auto"})
    tunnel = Tunnel(cluster.port)
    try:
        follow = follower(cluster, config, "--fetch", tmp_path / "back", address=tunnel.address)
        said = lines_until(follow, "generation   1")
        victim = cluster.raylets()[-1]
        orphans = psutil.Process(victim.pid).children(recursive=True)
        victim.send_signal(signal.SIGKILL)
        victim.wait(timeout=PATIENCE_S)
        tunnel.cut()
        # They outlive their raylet by up to some seconds, and could finish a run that is let go at once.
        assert not psutil.wait_procs(orphans, timeout=PATIENCE_S)[1]
        (project / "go").touch()
        out, rest = follow.communicate(timeout=PATIENCE_S)
    finally:
        tunnel.close()
    cluster.add_worker()  # for the tests that follow
    assert follow.returncode == 0, said + rest
    assert re.fullmatch(r"evo-toy-[0-9a-f]{8}\n", out)  # for scripts: the id alone
    assert len(re.findall(r"^generation   1 ", said + rest, re.MULTILINE)) == 1  # nothing twice
    assert winner_of(tmp_path / "back") == winner_of(undisturbed)
    happened = Lineage(tmp_path / "back").table("events").column("kind").to_pylist()
    assert "host lost" in happened
    token = cluster.token.read_bytes()
    files = [f for f in (tmp_path / "back").rglob("*") if f.is_file()]
    assert files
    assert not any(token in f.read_bytes() for f in files)
    assert token.decode() not in out + said + rest


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_on_a_cluster(cluster, evo, undisturbed, tmp_path):
    config = write_project(tmp_path / "project", tasks=[GATED])
    words = ("run", config, "--run-dir", tmp_path / "run", "--set", "pool.kind=local")
    local = subprocess.Popen(
        [BIN / "evo", *map(str, words)],
        env=cluster.users(),
        cwd=tmp_path / "project",
        stderr=subprocess.PIPE,
        text=True,
    )
    lines_until(local, "generation   1")
    local.kill()
    local.communicate()
    (tmp_path / "project" / "go").touch()
    refused = evo("resume", "run", "--address", cluster.gcs, env=stranger(tmp_path))
    assert (refused.code, "wants a token" in refused.err) == (2, True)
    run, project = tmp_path / "run", tmp_path / "project"
    done = evo("resume", run, "--address", cluster.gcs, cwd=project)
    assert done.code == 0, done.err
    assert winner_of(tmp_path / "run") == winner_of(undisturbed)


@pytest.mark.slow
def test_a_job_is_followed_again_stopped_and_submitted_again(cluster, evo, undisturbed, tmp_path):
    project = tmp_path / "project"
    config = write_project(project, tasks=[GATED])
    run_dir = f"{tmp_path}/shared/run/"  # as the shell completes it
    follow = follower(cluster, config, "--run-dir", run_dir)
    lines_until(follow, "generation   1")
    follow.send_signal(signal.SIGINT)
    out, err = follow.communicate(timeout=PATIENCE_S)
    job = out.strip()
    assert follow.returncode == 130
    assert f"{job} is still running" in err
    assert f"evo submit --stop {job}" in err

    again = subprocess.Popen(
        [BIN / "evo", "submit", "--attach", job, "--address", cluster.dashboard],
        env=cluster.users(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines_until(again, "generation   1")  # from the beginning
    stopped = evo("submit", "--stop", job, "--address", cluster.dashboard, "--fetch", "back")
    assert (stopped.code, f"{job}: stopped" in stopped.err) == (0, True)
    again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 143
    assert (tmp_path / "back" / "config.json").is_file()
    assert not (tmp_path / "back" / "summary.json").exists()
    twice = evo("submit", "--stop", job, "--address", cluster.dashboard)
    assert (twice.code, "has ended already" in twice.err) == (2, True)

    (project / "go").touch()
    words = ("--address", cluster.dashboard, "--run-dir", run_dir, "--follow")
    resumed = evo("submit", config, *words)
    assert resumed.code == 0, resumed.err
    assert winner_of(Path(run_dir)) == winner_of(undisturbed)
    assert (tmp_path / "shared" / "run.files" / "toy.yaml").is_file()


@pytest.mark.slow
def test_a_job_that_fails_says_so_with_its_code(evo, cluster, tmp_path):
    config = write_project(tmp_path / "project", engine={"kind": "module", "build": "toys:nothing"})
    done = evo("submit", config, "--address", cluster.dashboard, "--follow")
    assert done.code == 2
    assert "has no 'nothing'" in done.err
    unknown = evo("submit", "--attach", "evo-none-00000000", "--address", cluster.dashboard)
    assert (unknown.code, "has no such job" in unknown.err) == (2, True)


@pytest.mark.slow
def test_an_open_cluster_beyond_this_machine_is_refused_unless_told(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))  # sends nothing
        address = one.getsockname()[0]
    opened = ClusterProcesses(tmp_path / "open", workers=0, token=False, listen="0.0.0.0")
    try:
        with pytest.raises(PoolError, match="accepts jobs without a token"):
            open_dashboard(f"http://{address}:{opened.port}")
        assert open_dashboard(f"http://{address}:{opened.port}", insecure=True).token is None
        assert open_dashboard(opened.dashboard).token is None
        with job_client(open_dashboard(opened.dashboard)) as client:  # on this machine
            assert client.list_jobs() == []
    finally:
        opened.close()


class Recorder(http.server.BaseHTTPRequestHandler):
    """An open dashboard, or one that sends its guests on; keeps the headers that it got."""

    met: list[dict[str, str]]
    status = 200

    def do_GET(self) -> None:
        self.met.append(dict(self.headers))
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b'{"ray_version": "2.60.0"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("status", [200, 302, 307, 500])
def test_the_token_goes_only_to_a_dashboard_that_asks_for_it(monkeypatch, status):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cret")
    handler = type("Handler", (Recorder,), {"met": [], "status": status})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        if status == 200:
            assert open_dashboard(address).token is None
        else:
            with pytest.raises(PoolError, match="not a Ray dashboard"):
                open_dashboard(address)
    finally:
        server.shutdown()
        server.server_close()
    assert handler.met
    assert not any("s3cret" in str(headers) for headers in handler.met)


def test_paths_within_the_folder_are_shipped_and_others_named(tmp_path):
    config = write_project(tmp_path / "project")
    write_founders(tmp_path / "elsewhere")
    text = yaml.safe_load(config.read_text())
    text["founders"]["b"] = str(tmp_path / "elsewhere" / "b.safetensors")
    text["founders"]["c"] = "../elsewhere/c.safetensors"
    text["founders"]["remote"] = "/only/on/the/cluster"
    config.write_text(yaml.safe_dump(text))
    data, notes = relocate(config, ["seed=3"])
    assert data["base"] == "founders/base.safetensors"
    assert data["founders"] == {
        "a": "founders/a.safetensors",
        "b": str(tmp_path / "elsewhere" / "b.safetensors"),
        "c": str(tmp_path / "elsewhere" / "c.safetensors"),
        "remote": "/only/on/the/cluster",
    }
    assert (data["seed"], data["pool"]["address"], data["pool"]["hosts"]) == (3, "auto", 2)
    assert [note.split()[-2:] for note in notes] == [
        [f"founders.{name}:", data["founders"][name]] for name in ("b", "c", "remote")
    ]


@pytest.mark.parametrize(
    ("path", "says"),
    [("founders/none.safetensors", "no such file"), (".hidden/a.safetensors", "not be shipped")],
)
def test_what_would_be_missing_on_the_cluster_is_said_here(tmp_path, path, says):
    config = write_project(tmp_path / "project")
    write_founders(tmp_path / "project" / ".hidden")
    with pytest.raises(EvoError, match=says):
        relocate(config, [f"base={path}"])


def test_a_founder_of_links_into_a_cache_elsewhere_is_not_sent_without_its_files(tmp_path):
    config = write_project(tmp_path / "project")
    write_founders(tmp_path / "cache")
    founder = tmp_path / "project" / "downloaded"
    founder.mkdir()
    (founder / "model.safetensors").symlink_to(tmp_path / "cache" / "a.safetensors")
    with pytest.raises(EvoError, match=r"downloaded/model\.safetensors is a link"):
        relocate(config, ["founders.a=downloaded"])


def test_a_package_has_the_folder_without_secrets_caches_and_runs(tmp_path):
    folder = tmp_path / "project"
    write_project(folder)
    (tmp_path / "outside").write_text("private")
    (folder / "leaves").symlink_to(tmp_path / "outside")
    for name in (".env", ".git/config", "venv/x", "__pycache__/x", "runs/r/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "old" / "lineage").mkdir(parents=True)
    (folder / "old" / "config.json").write_text("{}")
    (folder / ".gitignore").write_text("founders\n")  # ignored by git, and yet needed
    for out in ("one.zip", "two.zip"):
        pack(folder, {"evo-submit.sh": b"exec"}, tmp_path / out)
    with zipfile.ZipFile(tmp_path / "one.zip") as package:
        names = set(package.namelist())
    founders = {f"founders/{n}.safetensors" for n in ("base", "a", "b", "c")}
    assert names == founders | {"toy.yaml", "toys.py", "gate.py", "evo-submit.sh"}
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_folder_that_is_too_large_names_its_largest_file(tmp_path):
    folder = tmp_path / "project"
    write_project(folder)
    with (folder / "huge.safetensors").open("wb") as file:
        file.truncate(500 * 2**20)
    with pytest.raises(PoolError, match=r"huge\.safetensors \(500 MiB\)"):
        pack(folder, {}, tmp_path / "out.zip")


def test_the_example_of_a_cluster_is_one_for_rays_launcher():
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (EXAMPLES / "cluster.yaml").read_text()
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in c for c in starts if "ray start" in c)
    assert f"[cluster]=={version('evo-models')}" in text


@pytest.mark.parametrize(
    ("evo", "code", "says"),
    [
        (None, NO_EVO, "has no evo"),
        ("echo evo, version 0.0.1", OTHER_EVO, "has evo, version 0.0.1"),
    ],
    ids=["none", "another"],
)
def test_a_cluster_without_our_evo_says_so(tmp_path, evo, code, says):
    if evo:
        (tmp_path / "evo").write_text(f"#!/bin/sh\n{evo}\n")
        (tmp_path / "evo").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", script("~/evo-runs/x", "0.1.0")],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, says in done.stderr) == (code, True)
    assert "pip install evo-models==0.1.0" in done.stderr


def test_names_and_folders_of_jobs_cannot_break_out_of_the_shell(tmp_path):
    (tmp_path / "evo").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "evo, version 1" || echo "$4"\n'
    )
    (tmp_path / "evo").chmod(0o755)
    mark = "$(touch mark) ; touch mark '\""
    place = f"{tmp_path}/{mark}"
    (tmp_path / "folder").mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", script(place, "1")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path / "folder",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{place}\n"
    assert not list(tmp_path.rglob("mark"))
    assert re.fullmatch(r"evo-[A-Za-z0-9_-]+", new_job_id("my; rm -rf / $(config)"))
