"""The status of a run, read from its run directory: while it runs, after it stopped, and once it finished."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.lineage.storage.records import Record
from evo.report.contract import State
from evo.report.data.reading import read
from evo.report.data.run_data import RunData
from evo.run_dir import RunDir

_ROUTINE_EVENTS = ("start", "finish")


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The status of a run in a few numbers.

    Attributes:
        holder: the process that works on the run ("process 12 on host a (since ...)"); None without one.
        generations: committed generations, with that of the founders.
        evaluations: individuals evaluated on dev in the search, committed or in the journal.
        budget: evaluations; None without such a limit.
        failed: evaluations that failed.
        pending: evaluations that are in the journal and in no commit yet.
        best: id of the winner, or of the best individual so far; None before the first.
        best_fitness: its fitness on dev.
        search_s: seconds of search so far.
        updated: when something was last recorded, in UTC; None if nothing was.
        events: number of events by kind, without start and finish.
        degraded: why hosts work more slowly than they could, one text for each reason.
        problem: what could not be read; None if everything could.
    """

    run_dir: Path
    state: State
    holder: str | None
    algorithm: str
    generations: int
    evaluations: int
    budget: int | None
    failed: int
    pending: int
    best: str | None
    best_fitness: float | None
    search_s: float
    updated: datetime | None
    events: Mapping[str, int]
    degraded: tuple[str, ...]
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        updated = self.updated and self.updated.isoformat(timespec="seconds")
        return {**asdict(self), "run_dir": str(self.run_dir), "updated": updated}

    def describe(self) -> str:
        """A few lines of text for people."""
        who = f" ({self.holder})" if self.holder else ""
        limit = f" of {self.budget}" if self.budget else ""
        rate = f", {self.evaluations / self.search_s:.1f} per second" if self.search_s > 0 else ""
        failed = f", {self.failed} failed" if self.failed else ""
        lines = [
            f"{self.run_dir}: {self.state}{who}",
            f"{self.algorithm}: {self.evaluations}{limit} evaluations{rate}{failed}",
            f"{self.generations} generations committed, {self.pending} more evaluations in the journal",
        ]
        if self.best_fitness is not None and self.best:
            lines.append(f"best so far {self.best_fitness:.4f} on dev: {self.best[:12]}")
        if self.updated:
            ago = (datetime.now(UTC) - self.updated).total_seconds()
            lines.append(
                f"last record {self.updated.isoformat(timespec='seconds')} ({ago:.0f} s ago)"
            )
        if self.events:
            lines.append(", ".join(f"{kind} {count}x" for kind, count in self.events.items()))
        lines += [f"degraded: {detail}" for detail in self.degraded]
        if self.problem:
            lines.append(self.problem)
        elif self.state == "stopped":
            lines.append(f"resume it with: evo resume {self.run_dir}")
        return "\n".join(lines)


def read_status(run_dir: Path) -> RunStatus:
    """Read the status of a run.

    Raises:
        EvoError: ``run_dir`` holds no run.
    """
    folder = RunDir(run_dir)
    if not folder.has_run and folder.holder() is None:
        raise EvoError(f"{run_dir}: no run here (it has no {folder.config_path.name})")
    return status_of(read(Lineage(run_dir)))


def status_of(data: RunData) -> RunStatus:
    """The status of a run that was read."""
    scores, problems = data.dev_scores, list(data.problems)
    pending: list[Record] = []
    try:
        pending = data.pending
    except EvoError as error:
        problems.append(str(error))
    events = list(
        zip(*(data.events.column(n).to_pylist() for n in ("kind", "detail")), strict=True)
    )
    counts = Counter(kind for kind, _ in events)
    seconds = [*scores.at_seconds, *(r.at_s for r in pending)]
    return RunStatus(
        run_dir=data.run_dir,
        state=_state(data),
        holder=data.holder,
        algorithm=data.algorithm,
        generations=data.generations,
        evaluations=len(scores.ids) + len(pending),
        budget=data.config.get("budget", {}).get("evaluations"),
        failed=int(np.isnan(scores.fitness).sum()) + sum(bool(r.error) for r in pending),
        pending=len(pending),
        best=data.winner,
        best_fitness=None if data.winner is None else scores.of(data.winner),
        search_s=float(max(seconds, default=0.0)),
        updated=_updated(data),
        events={kind: n for kind, n in counts.items() if kind not in _ROUTINE_EVENTS},
        degraded=tuple(dict.fromkeys(detail for kind, detail in events if kind == "degraded")),
        problem="\n".join(dict.fromkeys(problems)) or None,
    )


def _state(data: RunData) -> State:
    if data.finished:
        return "finished"
    if RunDir(data.run_dir).is_starting:
        return "starting"
    return "running" if data.holder else "stopped"


def _updated(data: RunData) -> datetime | None:
    times: list[datetime] = data.events.column("time").to_pylist()
    journal = RunDir(data.run_dir).journal
    if journal.exists():
        times.append(datetime.fromtimestamp(journal.stat().st_mtime, UTC))
    return max(times, default=None)
