"""Runs that are interrupted after a number of results, resumed, and compared with runs that were not."""

import os
import sys

import pytest
from places import SUPPORT
from toy_runs import run, tables
from toys import toy_config

from cluster.local_pool import LocalPool
from evo.evolution import Evolution
from evo.run.pool import start_pool
from evo.run.setup import load_tasks, open_founders
from evo.run_dir import RunDir

EVENTS_OF_RESUMES = {"resume", "repair", "drift", "extended"}


class Stop(KeyboardInterrupt):
    """What stops a run here."""


class StoppingPool:
    """A LocalPool that is interrupted when its n-th result is taken."""

    def __init__(self, inner: LocalPool, after: int) -> None:
        self.inner, self.left = inner, after
        self.taken = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def wait(self, keys=None):
        if self.left == 0:
            raise Stop
        self.left -= 1
        self.taken += 1
        return self.inner.wait(keys)


def pool_for(config, run_dir, after):
    founders, _ = open_founders(config, RunDir(run_dir))
    return StoppingPool(start_pool(config, founders, load_tasks(config.tasks)), after)


def stopped_run(config, run_dir, after):
    """A run that is interrupted after so many evaluations, in whatever it does by then."""
    pool = pool_for(config, run_dir, after)
    with pytest.raises(Stop):
        run(config, run_dir, pool=pool)


def resume(run_dir, **options):
    """The summary of a run that is gone on with to its end."""
    with Evolution.resume(run_dir, **options) as evolution:
        for _ in evolution:
            pass
        return evolution.finish()


def recorded_in(run_dir):
    """The tables without what only says how often the run was stopped."""
    found = tables(run_dir)
    events = found.pop("events")
    kept = [
        (k, d)
        for k, d in zip(events["kind"], events["detail"], strict=True)
        if k not in EVENTS_OF_RESUMES
    ]
    return found, kept


def results(summary):
    return summary.rows, summary.evaluations, summary.stopped_by


def config_for(founders, name="recipe_search", **more):
    more = {"baselines": {"random_search": True, "static": ["ties"]}, "seed": 5} | more
    return toy_config(founders, algorithm={"name": name}, budget={"evaluations": 30}, **more)


CLI = [sys.executable, "-c", "import sys; from evo.cli import main; main()"]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}",
    }
