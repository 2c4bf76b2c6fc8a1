"""Prometheus, through Ray's own metrics: what hosts do is counted by the pool, fitness is set here."""

from typing import TYPE_CHECKING

from evo.config.trackers import PrometheusSettings
from evo.run_dir.summary import RunSummary
from evo.trackers.protocol import TrackedRun

if TYPE_CHECKING:
    from evo.search.progress import Generation


class PrometheusTracker:
    """Sets the best fitness so far as a gauge, tagged by the run's name."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings

    def start(self, run: TrackedRun) -> str:
        """Gives the address at which this node serves the numbers."""
        from cluster.ray.metrics import exported_at

        self._run = run.name
        return exported_at()

    def generation(self, generation: "Generation") -> None:
        from cluster.ray.metrics import set_best

        set_best(self._run, generation.best.fitness)

    def finish(self, summary: RunSummary) -> None:
        """Nothing: a run's outcome is no time series."""

    def close(self) -> None:
        """Nothing: its numbers go with its Ray."""
