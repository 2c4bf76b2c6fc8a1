"""Where a run stands, from its folder alone; also while it runs, and after it was killed."""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from evo.errors import EvoError
from evo.lineage.storage.commits import FINAL, commits
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.storage.journal import read_journal
from evo.lineage.storage.records import Record
from evo.run_dir import RunDir

State = Literal["running", "stopped", "finished"]


@dataclass(frozen=True, slots=True)
class Status:
    """``evaluations`` are individuals scored on dev; ``journal`` are evaluations in no commit yet, also
    on other splits.
    """

    run_dir: str
    state: State
    holder: str | None
    algorithm: str
    generations: int  # committed, the founders' included
    evaluations: int
    budget: int | None
    failed: int
    journal: int
    best: str | None
    best_fitness: float | None
    search_s: float
    last_evaluation: str | None
    events: dict[str, int]
    degraded: tuple[str, ...]
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """For people, a few lines."""
        of = f" of {self.budget}" if self.budget else ""
        who = f" ({self.holder})" if self.holder else ""
        lines = [f"{self.run_dir}: {self.state}{who}"]
        rate = f", {self.evaluations / self.search_s:.1f} a second" if self.search_s > 0 else ""
        lines.append(
            f"{self.algorithm}: {self.evaluations}{of} evaluations{rate}"
            + (f", {self.failed} failed" if self.failed else "")
        )
        lines.append(
            f"{self.generations} generations committed, {self.journal} evaluations more in the journal"
        )
        if self.best_fitness is not None and self.best:
            lines.append(f"best so far {self.best_fitness:.4f} on dev: {self.best[:12]}")
        if self.last_evaluation:
            lines.append(f"last evaluation {self.last_evaluation}")
        if self.events:
            lines.append(", ".join(f"{kind} {count}x" for kind, count in self.events.items()))
        lines += [f"degraded: {detail}" for detail in self.degraded]
        if self.problem:
            lines.append(self.problem)
        elif self.state == "stopped":
            lines.append(f"go on with: evo resume {self.run_dir}")
        return "\n".join(lines)


def status_of(run_dir: Path) -> Status:
    """Read where a run stands.

    Raises:
        EvoError: there is no run.
    """
    config = RunDir(run_dir).read_config(check_files=False)
    folder = RunDir(run_dir).lineage
    who = RunDir(run_dir).holder()
    problem: str | None = None
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    alive: list[dict[str, Any]] = []
    recent: list[Record] = []
    try:
        recent = list(read_journal(RunDir(run_dir).journal).records)
        found = commits(folder)
        names = [c.name for c in found]
        for entry in found:
            for table, into in (("evaluations", rows), ("events", events), ("population", alive)):
                read = read_committed(folder, entry, table, _NEEDED[table], whole=False)
                into += [{**row, "commit": entry.name} for row in read.to_pylist()]
    except EvoError as error:
        problem = str(error)
    # Merges that the search is compared with are tried on dev too, after it.
    dev = {
        r["individual"]: r["status"] for r in rows if r["split"] == "dev" and r["commit"] != FINAL
    }
    search_s = [r["at_seconds"] for r in rows if r["commit"] != FINAL]
    committed = {(r["individual"], r["split"], "score") for r in rows}
    # The rungs of a race are one evaluation.
    uncommitted = {(*r.key[:2], r.key[2].partition(":")[0]) for r in recent} - committed
    waiting = {
        r.individual: r.error for r in recent if r.key[1] == "dev" and r.individual not in dev
    }
    scored = [r for r in alive if r["fitness"] is not None]
    best = max(scored, key=lambda r: r["fitness"], default=None)
    finished = FINAL in names
    journal = RunDir(run_dir).journal
    changed = journal.stat().st_mtime if journal.exists() and (rows or recent) else None
    return Status(
        str(run_dir),
        "finished" if finished else "running" if who else "stopped",
        who,
        config.algorithm.name,
        sum(name != FINAL for name in names),
        len(dev) + len(waiting),
        config.budget.evaluations,
        sum(s == "failed" for s in dev.values()) + sum(bool(e) for e in waiting.values()),
        len(uncommitted),
        best["individual"] if best else None,
        best["fitness"] if best else None,
        max([*search_s, *(r.at_s for r in recent)], default=0.0),
        None if changed is None else _when(changed),
        dict(Counter(e["kind"] for e in events if e["kind"] not in _ORDINARY)),
        tuple(dict.fromkeys(e["detail"] for e in events if e["kind"] == "degraded")),
        problem,
    )


_ORDINARY = ("start", "finish")
_NEEDED = {
    "evaluations": ["individual", "split", "status", "at_seconds"],
    "events": ["kind", "detail"],
    "population": ["individual", "fitness"],
}


def _when(timestamp: float) -> str:
    at = datetime.fromtimestamp(timestamp, UTC)
    ago = (datetime.now(UTC) - at).total_seconds()
    return f"{at.isoformat(timespec='seconds')} ({ago:.0f} s ago)"
