"""Whole runs on toys, and what their lineage says."""

import pyarrow.compute as pc

import evo.lineage
from evo.algorithms import ALGORITHMS, read_settings, traits
from evo.evolution import Evolution
from evo.lineage import SCHEMAS

# The toy has no layers to lead a path through: tests/evo/run/test_path_runs.py has those algorithms.
NAMES = [name for name in ALGORITHMS if not traits(read_settings(name)).paths]


COURSE = ["start", "vocabulary", "retry", "failed", "finish"]


TIMES = {"at_seconds", "seconds", "build_seconds", "model_seconds", "host", "attempt", "time"}


def run(config, run_dir, **options):
    """The summary of a whole run."""
    with Evolution(config, run_dir, **options) as evolution:
        for _ in evolution:
            pass
        return evolution.finish()


def tables(run_dir):
    """All that the lineage says of what happened, without times and places."""
    lineage = evo.lineage.open(run_dir)
    found = {}
    for name in SCHEMAS:
        table = lineage.table(name)
        if name == "events":  # not what happened to hosts
            table = table.filter(pc.field("kind").isin(COURSE))
        kept = [c for c in table.column_names if c not in TIMES]
        found[name] = {c: table.column(c).to_pylist() for c in kept}
    return found


def task(metric="nearness", name="toy", splits=("dev", "select", "test"), **more):
    return {"name": name, "metric": f"toys:{metric}", "data": {s: s for s in splits}, **more}


def rows(run_dir, table="evaluations"):
    return evo.lineage.open(run_dir).table(table).to_pylist()
