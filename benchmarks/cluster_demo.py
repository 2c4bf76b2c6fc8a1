"""A cluster of three nodes with a token: refused without it, submitted, followed, a node killed.

Starts `ray start` as a head and two workers in processes of their own on this machine, ends them, and
writes how long each step took. Needs the extra `cluster`. Run: python benchmarks/cluster_demo.py
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from cluster_processes import ClusterProcesses, environment
from places import BIN, SUPPORT
from results import save
from toys import write_founders

CONFIG = """\
base: founders/base.safetensors
founders: [founders/a.safetensors, founders/b.safetensors, founders/c.safetensors]
engine: {kind: module, build: "toys:build"}
tasks:
  - {name: toy, metric: "slow:nearness", data: {dev: dev, select: select, test: test}}
algorithm: genome_plus
budget: {evaluations: 60}
"""
SLOW = """\
import time
from toys import nearness as quick

def nearness(module, split):
    time.sleep(0.2)
    return quick(module, split)
"""


def headline(data: dict[str, Any]) -> str:
    seconds = data["seconds"]
    refusals = [s for name, s in seconds.items() if name.startswith("refusal")]
    return (
        f"a killed job is resumed and fetched in {seconds['kill to end, fetched']:.0f} s; no or a wrong "
        f"token is refused within {max(refusals):.1f} s"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="evo-cluster-demo-") as temporary:
        demonstrate(Path(temporary))


def demonstrate(folder: Path) -> None:
    project = folder / "project"
    write_founders(project / "founders")
    (project / "demo.yaml").write_text(CONFIG)
    (project / "slow.py").write_text(SLOW)
    (project / "toys.py").write_text((SUPPORT / "toys.py").read_text())
    seconds: dict[str, float] = {}
    began = time.monotonic()
    cluster = ClusterProcesses(folder / "cluster", workers=2)
    try:
        seconds["start of head and two workers"] = time.monotonic() - began
        strangers = {"no token": {}, "a wrong token": {"RAY_AUTH_TOKEN": "0" * 64}}
        for name, token in strangers.items():
            for command, address in (("submit", cluster.dashboard), ("run", cluster.gcs)):
                env = environment(HOME=str(folder), **token)
                took = refused(command, project / "demo.yaml", address, env)
                seconds[f"refusal of evo {command} with {name}"] = took
        seconds |= follow(cluster, project / "demo.yaml", folder)
    finally:
        cluster.close()
    for name, value in seconds.items():
        print(f"{value:6.2f} s  {name}")
    save("cluster_demo", {"seconds": seconds}, headline({"seconds": seconds}))


def refused(command: str, config: Path, address: str, env: dict[str, str]) -> float:
    print(f"$ evo {command} demo.yaml --address {address}")
    began = time.monotonic()
    done = subprocess.run(
        [BIN / "evo", command, config, "--address", address],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    print(f"{done.stderr.strip().splitlines()[-1]}  [exit code {done.returncode}]\n")
    assert done.returncode == 2, done.stderr
    return time.monotonic() - began


def follow(cluster: ClusterProcesses, config: Path, folder: Path) -> dict[str, float]:
    """Submit, kill the second worker after two generations, and wait for the end."""
    back = folder / "back"
    words = ("submit", config, "--address", cluster.dashboard, "--follow", "--fetch", back)
    print("$ evo submit demo.yaml --address", cluster.dashboard, "--follow --fetch back")
    began, killed = time.monotonic(), 0.0
    job = subprocess.Popen(
        [BIN / "evo", *map(str, words)], env=cluster.users(), stderr=subprocess.PIPE, text=True
    )
    assert job.stderr is not None
    for line in job.stderr:
        print(line, end="", flush=True)
        if "generation   2" in line and not killed:
            victim = cluster.raylets()[-1]
            print(f"... kill -9 {victim.pid}, the second worker's raylet", flush=True)
            os.kill(victim.pid, signal.SIGKILL)
            killed = time.monotonic()
    code = job.wait()
    summary = json.loads((back / "summary.json").read_text())
    assert (code, summary["evaluations"]) == (0, 60), code
    print(f"exit code {code}, winner {summary['winner']['id'][:12]}\n")
    return {
        "submit to kill": killed - began,
        "kill to end, fetched": time.monotonic() - killed,
    }


if __name__ == "__main__":
    main()
