"""A Ray cluster as people start one: `ray start` in processes of their own, with a token."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from patience import PATIENCE_S
from places import BIN, ROOT

RAY = (sys.executable, "-m", "ray.scripts.scripts")  # `ray`, of the Python that runs this


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Variables of a user without any Ray's settings, who finds `evo` on the PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = [str(BIN), kept.get("PATH", "")]
    modules = [p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p]
    return {
        **kept,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(modules),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # as in conftest.py
        "OMP_NUM_THREADS": "1",
        **more,
    }


class ClusterProcesses:
    """A head without processors and workers with two each; ``token`` is a file of mode 0600, or None.

    ``listen`` is where the dashboard does.
    """

    def __init__(
        self, folder: Path, *, workers: int, token: bool = True, listen: str = "127.0.0.1"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.token = folder / "auth_token" if token else None
        settings = {"RAY_AUTH_MODE": "token" if token else "disabled", "HOME": str(folder)}
        if self.token:
            with os.fdopen(os.open(self.token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            settings["RAY_AUTH_TOKEN_PATH"] = str(self.token)
        self._environment = environment(RAY_health_check_period_ms="1000", **settings)
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.gcs = f"127.0.0.1:{free_port()}"
        port = free_port()
        self.port = port
        self.dashboard = f"http://127.0.0.1:{port}"
        # Sockets have short paths, so no folder of pytest's.
        self._ray_folder = Path(tempfile.gettempdir()) / f"evo-{os.getpid()}-{port}"
        try:
            self._start(
                *("--head", f"--port={self.gcs.partition(':')[2]}", f"--dashboard-port={port}"),
                *("--num-cpus=0", f"--temp-dir={self._ray_folder}", f"--dashboard-host={listen}"),
            )
            for _ in range(workers):
                self.add_worker()
            self._await(lambda: _answers(port))
        except BaseException:
            self.close()
            raise

    def add_worker(self) -> None:
        """Start a worker; return when it belongs to the cluster."""
        self._start(f"--address={self.gcs}", "--num-cpus=2")

    def users(self, **more: str) -> dict[str, str]:
        """The environment of somebody who has the token."""
        token = {"RAY_AUTH_TOKEN_PATH": str(self.token)} if self.token else {}
        return environment(HOME=str(self.folder), **token, **more)

    def raylets(self) -> list[psutil.Process]:
        """One for each living node, in the order of their start."""
        found = []
        for node in self.nodes:
            if node.poll() is None:
                children = psutil.Process(node.pid).children(recursive=True)
                found += [p for p in children if p.name() == "raylet"]
        return found

    def close(self) -> None:
        """End what was started here, and nothing else."""
        for node in reversed(self.nodes):
            family = [psutil.Process(node.pid)] if node.poll() is None else []
            family += [c for p in family for c in p.children(recursive=True)]
            if family:
                node.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                    process.kill()
            node.wait()
        subprocess.run(["rm", "-rf", str(self._ray_folder)], check=False)

    def _start(self, *arguments: str) -> None:
        log = (self.folder / f"node-{len(self.nodes)}.log").open("wb")
        self.nodes.append(
            subprocess.Popen(
                [
                    *RAY,
                    *("start", "--block", "--node-ip-address=127.0.0.1"),
                    *("--object-store-memory=100000000", "--min-worker-port=0"),
                    # The default is one port for all: only the first Ray of a machine takes jobs.
                    *("--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"),
                    *arguments,
                ],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        self._await(lambda: b"Ray runtime started" in Path(log.name).read_bytes())

    def _await(self, condition) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline or self.nodes[-1].poll() is not None:
                logs = [
                    p.read_text(errors="replace")[-2000:] for p in self.folder.glob("node-*.log")
                ]
                raise RuntimeError("the cluster did not start: " + "\n".join(logs))
            time.sleep(0.1)


def _answers(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(0.2)
        return one.connect_ex(("127.0.0.1", port)) == 0
