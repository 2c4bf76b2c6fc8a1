"""Numbers for Prometheus, by Ray's own metrics: each node's agent serves them at its metrics port.

Ray puts ``ray_`` before the names (and ``_total`` after counters), gathers them every ten seconds
(``RAY_metrics_report_interval_ms``), and needs what ``ray[default]`` brings for it. The port is open to
whoever reaches the node: Ray's token does not close it.
"""

from functools import cache
from typing import Any

from ray.util.metrics import Counter, Gauge

from cluster.errors import PoolError
from cluster.jobs import JobResult
from cluster.ray.connect import ray

_RUN = ("run",)
_best: dict[str, float] = {}  # by run


class PoolMetrics:
    """Counts what one pool does for ``run``, a name to tell runs apart by; nothing where it is None."""

    def __init__(self, run: str | None) -> None:
        self._tags = {"run": run or ""}
        self._on = run is not None

    def done(self, result: JobResult) -> None:
        """A job has ended, with scores or without."""
        if not self._on:
            return
        _counter("evo_evaluations", "Evaluations that ended, failed ones included").inc(
            tags=self._tags
        )
        if not result.ok:
            _counter("evo_evaluations_failed", "Evaluations that failed").inc(tags=self._tags)
        timing = result.timing
        stages = {"build": timing.build_s, "model": timing.model_s, "score": timing.score_s}
        for stage, seconds in stages.items():
            if seconds > 0:
                name, text = "evo_busy_seconds", "What hosts and the scorer spent, by stage"
                _counter(name, text, "stage").inc(seconds, tags=self._tags | {"stage": stage})

    def retry(self) -> None:
        """A job is done again, as its host, scorer or node was lost."""
        if self._on:
            _counter("evo_retries", "Evaluations that were begun again").inc(tags=self._tags)

    def now(self, *, hosts: int, in_flight: int) -> None:
        """How many hosts are ready, and how many jobs are with them and the scorer; every second or so."""
        if self._on:
            _gauge("evo_hosts", "Model hosts that are ready").set(hosts, tags=self._tags)
            _gauge("evo_in_flight", "Evaluations under way").set(in_flight, tags=self._tags)
            # Ray forgets a gauge that was not set for two of its reports; a generation may take longer.
            if self._tags["run"] in _best:
                set_best(self._tags["run"], _best[self._tags["run"]])


def set_best(run: str, fitness: float) -> None:
    """The best fitness so far of a run, on dev."""
    _best[run] = fitness
    _gauge("evo_best_fitness", "Best fitness so far, on dev").set(fitness, tags={"run": run})


def exported_at() -> str:
    """Where this node serves the numbers; every node of the cluster has a port of its own.

    Raises:
        PoolError: it serves none.
    """
    here = ray.get_runtime_context().get_node_id()
    node: dict[str, Any] = next(n for n in ray.nodes() if n["NodeID"] == here)
    if not node["MetricsExportPort"]:
        raise PoolError("this node of the Ray cluster exports no metrics: it lacks ray[default]")
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


@cache
def _counter(name: str, text: str, *tags: str) -> Counter:
    return Counter(name, description=text, tag_keys=(*_RUN, *tags))


@cache
def _gauge(name: str, text: str) -> Gauge:
    return Gauge(name, description=text, tag_keys=_RUN)
