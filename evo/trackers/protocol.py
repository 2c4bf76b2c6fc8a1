"""The interface of trackers, and the numbers of a run that they log. Pure: no tracker's package is needed."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evo.run_dir import RunDir

if TYPE_CHECKING:
    from evo.run_dir.summary import RunSummary
    from evo.search.progress import Generation


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker gets when a session begins: a run is started once and may be resumed many times.

    Attributes:
        run_dir: the run directory.
        config: the run's config as JSON, without its trackers.
        algorithm: the algorithm's name.
        tracker_id: the tracker's id of the run, as `Callback.start` returned it in an earlier session; "" if none.
        evaluations: evaluations up to the last generation that the tracker has logged; -1 if none.
    """

    run_dir: Path
    config: Mapping[str, Any]
    algorithm: str
    tracker_id: str = ""
    evaluations: int = -1

    @property
    def name(self) -> str:
        return self.run_dir.resolve().name


class Callback(Protocol):
    """Follows a run: a tracker of TRACKERS, or a class of yours in ``Evolution(callbacks=[...])``.

    Each generation is passed once, over all sessions. An exception in `start` stops the run before it begins. Later,
    a callback that raises is removed: the run continues without it, and an event in the lineage has the reason.
    """

    def start(self, run: TrackedRun) -> str:
        """Begin or continue; return the id by which a later session finds the run again.

        An id that differs from ``run.tracker_id`` means that nothing is logged yet: then all generations are
        passed, those of earlier sessions too.
        """
        ...

    def generation(self, generation: "Generation") -> None:
        """A generation is complete and committed; it counts as logged when this returns."""
        ...

    def finish(self, summary: "RunSummary") -> None:
        """The run has finished; ``summary`` is what ``summary.json`` holds."""
        ...

    def close(self) -> None:
        """Release all resources, whether the run has finished or not. A second call does nothing."""
        ...


def metrics_of(generation: "Generation") -> dict[str, float]:
    """The numbers of a generation, under the names that every tracker uses; finite ones only.

    Fitness is on dev. The rate is over the whole search up to here.
    """
    rate = generation.evaluations / generation.seconds if generation.seconds > 0 else math.nan
    found = {
        "best": generation.best.fitness,
        "mean": generation.mean,
        "spread": generation.spread,
        "generation": float(generation.number),
        "evaluations": float(generation.evaluations),
        "failed": float(generation.failed),
        "evaluations_per_second": rate,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def final_scores(summary: "RunSummary") -> dict[str, float]:
    """Test scores of the winner and of what it is compared with: ``test/winner``, ``test/founder/a``.

    Their standard errors are under ``test_se/...``. Names keep letters, digits and ``_.-`` only.
    """
    found: dict[str, float] = {}
    for row in summary.rows:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", row.name).strip("_")
        path = row.kind if name == row.kind else f"{row.kind}/{name}"
        for score, value in (("test", row.test), ("test_se", row.test_se)):
            if value is not None:
                found[f"{score}/{path}"] = value
    return found


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """A config as flat text: ``budget.evaluations``, ``tasks.0.name``; without what is not set."""
    return {name: str(value) for name, value in _flat(config, "") if value is not None}


def report_path(run_dir: Path) -> str | None:
    """Where the run's report is, if it was made."""
    path = RunDir(run_dir).report_path
    return str(path.resolve()) if path.is_file() else None


def _flat(data: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping):
        pairs = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list):
        pairs = [(str(key), value) for key, value in enumerate(data)]
    else:
        yield at, data
        return
    for key, value in pairs:
        yield from _flat(value, f"{at}.{key}" if at else key)
