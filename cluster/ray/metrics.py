"""Metrics for Prometheus through Ray: each node's agent serves them at its metrics port.

Ray adds ``ray_`` before the names and ``_total`` after counters, collects them every ten seconds
(``RAY_metrics_report_interval_ms``), and needs ``ray[default]`` for it. Ray's token does not protect the
port: everybody who can reach the node can read it.
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
    """Metrics of one pool with the label ``run``; none if ``run`` is None."""

    def __init__(self, run: str | None) -> None:
        self._tags = {"run": run or ""}
        self._on = run is not None

    def done(self, result: JobResult) -> None:
        """Count a job that ended, with scores or an error."""
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
                name, text = "evo_busy_seconds", "Time of hosts and the scorer, by stage"
                _counter(name, text, "stage").inc(seconds, tags=self._tags | {"stage": stage})

    def retry(self) -> None:
        """Count a retry after the loss of a host, scorer or node."""
        if self._on:
            _counter("evo_retries", "Evaluations that were started again").inc(tags=self._tags)

    def now(self, *, hosts: int, in_flight: int) -> None:
        """Set the numbers of ready hosts and of jobs at hosts and the scorer."""
        if self._on:
            _gauge("evo_hosts", "Model hosts that are ready").set(hosts, tags=self._tags)
            _gauge("evo_in_flight", "Evaluations in progress").set(in_flight, tags=self._tags)
            # Ray drops a gauge that is not set for two of its reports; a generation may take longer.
            if self._tags["run"] in _best:
                set_best(self._tags["run"], _best[self._tags["run"]])


def set_best(run: str, fitness: float) -> None:
    """Set the best fitness so far of a run, on dev."""
    _best[run] = fitness
    _gauge("evo_best_fitness", "Best fitness so far, on dev").set(fitness, tags={"run": run})


def exported_at() -> str:
    """The URL of this node's metrics; every node has a port of its own.

    Raises:
        PoolError: the node serves no metrics.
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
