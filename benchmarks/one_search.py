"""One search in a process of its own, as `evo run` does it, and an account of where its time went.

As a module: ``search(config, ...)`` starts the process and gives the account. Nothing but the search is
counted: start-up is told apart, and winner and baselines are not scored.
"""

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil

import fitness.engines.hf.scores

PROFILED = 15  # functions that a profile's summary names


def search(
    config: Path, settings: Sequence[str] = (), *, parts: bool = False, profile: bool = False
) -> dict[str, Any]:
    """The account of a search by ``config`` with ``settings`` ("key=value") in place of what it says.

    Keys: ``evaluations``; seconds ``startup_s``, ``search_s``; seconds that hosts and scorers worked,
    ``build_s`` (with digest and installing), ``model_s``, ``score_s``; ``hosts``; processor seconds by
    kind of process, ``cpu_coordinator_s``, ``cpu_hosts_s`` (with the scorer's), ``cpu_ray_s``. With
    ``parts`` (a local pool only) ``parts``: seconds, processor seconds and calls of each part. With
    ``profile`` the functions that took this process's processor time, as told by cProfile, which slows it down.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(config), f"{folder}/run"]
        command += [f"--set={setting}" for setting in settings]
        command += ["--parts"] * parts + ["--profile"] * profile
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Stopwatch:
    """Each part's own seconds: what a timed function calls that is timed itself counts for that alone."""

    def __init__(self) -> None:
        self.wall: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._inside: list[str] = []
        self._since = (perf_counter(), process_time())

    def time(self, owner: Any, name: str, part: str) -> None:
        """Count calls of ``owner.name`` for ``part``."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            self._turn()
            self._inside.append(part)
            self.calls[part] += 1
            try:
                return function(*arguments, **named)
            finally:
                self._turn()
                self._inside.pop()

        setattr(owner, name, timed)

    def parts(self) -> dict[str, dict[str, float]]:
        self._turn()
        return {
            part: {"wall_s": self.wall[part], "cpu_s": self.cpu[part], "calls": self.calls[part]}
            for part in self.wall
        }

    def _turn(self) -> None:
        now = (perf_counter(), process_time())
        part = self._inside[-1] if self._inside else "coordinator"
        self.wall[part] += now[0] - self._since[0]
        self.cpu[part] += now[1] - self._since[1]
        self._since = now


def watch_host(pool: Any) -> Stopwatch:
    """Time the parts of a local pool's host, and waiting for the disk; the rest is the coordinator's:
    search, journal, lineage.
    """
    watch = Stopwatch()
    host, scorer = pool._host, pool._scorer
    engine, builder = host._engine, host._builder
    watch.time(os, "fsync", "waiting for the disk")
    watch.time(pool, "wait", "host, the rest")
    watch.time(scorer, "score", "scoring")
    watch.time(builder, "build", "build")
    watch.time(builder, "build_all", "build")
    watch.time(builder, "digest", "digest")
    watch.time(engine, "install", "install")
    watch.time(engine, "prepare", "tokenising and batching")
    watch.time(engine, "together", "measuring how many run together")
    watch.time(engine, "answer", "outputs from log-probabilities")
    watch.time(engine, "answer_many", "outputs from log-probabilities")
    watch.time(fitness.engines.hf.scores, "token_scores", "log-probabilities from logits")
    # Of the class: models that run several individuals at once are of it, too.
    watch.time(type(engine.model), "forward", "model forward")
    return watch


def processors() -> dict[str, float]:
    """Processor seconds so far of this process, of hosts and scorers, and of Ray's own processes."""
    seconds = {"cpu_coordinator_s": process_time(), "cpu_hosts_s": 0.0, "cpu_ray_s": 0.0}
    for child in psutil.Process().children(recursive=True):
        try:
            used, command = child.cpu_times(), child.cmdline()
        except psutil.Error:  # it has just ended
            continue
        works = bool(command) and command[0].startswith(("ray::HostActor", "ray::ScorerActor"))
        seconds["cpu_hosts_s" if works else "cpu_ray_s"] += used.user + used.system
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()

    from evo.config.loader import load_config
    from evo.evolution import Evolution

    with Evolution(load_config(options.config, options.set), options.run_dir) as evolution:
        watch = watch_host(evolution._run.pool) if options.parts else None
        profiler = cProfile.Profile(process_time)
        before = processors()
        if options.profile:
            profiler.enable()
        for _ in evolution:
            pass
        profiler.disable()
        after = processors()
        parts = watch.parts() if watch else {}
        found, hosts = evolution._run.search, evolution._run.pool.hosts
    account = {
        "evaluations": found.evaluations,
        "best": found.best.fitness if found.best else None,
        "hosts": hosts,
        "startup_s": evolution._startup_s,
        "search_s": found.seconds,
        "build_s": found.busy.build_s,
        "model_s": found.busy.model_s,
        "score_s": found.busy.score_s,
        **{key: after[key] - before[key] for key in after},
    }
    if watch:
        account["parts"] = parts
    if options.profile:
        account["profile"] = functions(profiler)
    print(json.dumps(account))


def functions(profiler: cProfile.Profile) -> list[dict[str, Any]]:
    """Those that took most seconds of their own."""
    stats: Any = pstats.Stats(profiler)
    rows = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])[:PROFILED]
    return [
        {
            "function": f"{'/'.join(Path(file).parts[-2:])}:{line} {name}",
            "calls": calls,
            "own_s": round(own, 4),
            "with_callees_s": round(total, 4),
        }
        for (file, line, name), (_, calls, own, total, _) in rows
    ]


if __name__ == "__main__":
    main()
