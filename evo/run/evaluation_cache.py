"""Evaluations of other runs, found in their lineages: the same individual is not evaluated twice.

A recipe's id names its founders by what they hold, so what an earlier run scored holds here as well, to
the last bit, where all else that decides a score is the same too: examples, their metric, the engine's
settings, the base with its tokenizer, code, versions of libraries, and the kind of processor.
"""

import glob
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from cluster.jobs import HostStats, Job, JobResult, PoolEvent, Query, QueryResult, Timing
from cluster.pool import Completed, Pool
from evo.errors import EvoError
from evo.lineage.read.lineage import LINEAGE_FOLDER
from evo.lineage.storage.commits import commits
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.storage.records import RACED, Record, records_from
from evo.run.manifest import DECISIVE, START_FILE, read_start
from evo.run.recovery import holds_run
from evo.search.rungs import restricted
from fitness.tasks.task import Task

REUSED = "reused"  # the host of what no host had to run
Known: TypeAlias = Mapping[tuple[str, tuple[Query, ...], str], Record]
"""Records by individual, queries, and what was asked as :func:`evo.lineage.storage.records.what_of` says."""

# A score depends on these; what the search does with it is another matter.
_CODE = ("cluster", "fitness", "operators")
_NOT_SCORES = ("weight", "limit", "files", "data")  # what these choose is in the examples' digest


@dataclass(frozen=True, slots=True)
class Found:
    """What other runs know, and a line for each run about it."""

    known: Known
    notes: tuple[str, ...] = ()


def find_reusable(patterns: Sequence[Path], made: Mapping[str, Any], run_dir: Path) -> Found:
    """All that the runs in the folders ``patterns`` (paths with wildcards) evaluated as ``made`` would.

    Each run is taken as far as it is committed, also while it goes on. ``run_dir`` itself is left out.
    A run that goes on does so though others are gone or damaged by now.

    Raises:
        EvoError: no run there, or a damaged one.
    """
    known: dict[tuple[str, tuple[Query, ...], str], Record] = {}
    folders, notes = _runs(patterns, run_dir)
    for folder in folders:
        if not (folder / START_FILE).is_file():
            if not holds_run(run_dir):
                raise EvoError(f"reuse: {folder}: no run there (it has no {START_FILE})")
            notes.append(f"{folder}: not reused: it is gone")
            continue
        try:
            found, other = _evaluated(folder, made)
        except EvoError as error:
            if not holds_run(run_dir):
                raise
            notes.append(f"{folder}: not reused: {error}")
            continue
        if other:
            notes.append(f"{folder}: not reused: {other} was another")
            continue
        before = len(known)
        for record in found:
            known.setdefault((record.individual, record.queries, record.key[2]), record)
        notes.append(f"{folder}: {len(known) - before} evaluations can be reused")
    return Found(known, tuple(notes))


def _evaluated(folder: Path, made: Mapping[str, Any]) -> tuple[list[Record], str]:
    """The records of a run that this one would have the same; or what decides all and was another."""
    then = read_start(folder)
    was, is_ = _deciding(then), _deciding(made)
    others = sorted(k for k in was.keys() | is_.keys() if was.get(k) != is_.get(k))
    if others:
        return [], others[0]
    found: list[Record] = []
    for entry in commits(folder / LINEAGE_FOLDER):
        tables = [
            read_committed(folder / LINEAGE_FOLDER, entry, t) for t in ("evaluations", "items")
        ]
        found += (
            record
            for record in records_from(tables[0], tables[1])
            if not record.error
            and all(_scored(then, a) == _scored(made, a) for a in record.queries)
        )
    return found, ""


class ReusingPool:
    """A pool that gives what is known at once, and asks ``pool`` for the rest.

    Of what raced the parts are known that it met.
    """

    def __init__(self, pool: Pool, known: Known, tasks: Sequence[Task]) -> None:
        self._pool, self._known = pool, known
        self._tasks = {task.name: task for task in tasks}
        self._completed = Completed()
        self._reused = 0

    @property
    def hosts(self) -> int:
        return self._pool.hosts

    @property
    def pending(self) -> int:
        return len(self._completed) + self._pool.pending

    def submit(self, job: Job) -> int:
        record = self._record(job)
        if record is None:
            return self._pool.submit(job)
        self._reused += 1
        key = -self._reused  # the pool's own keys are not negative
        # It cost nothing here, wherever it was run once.
        made = replace(record.execution, tokens=())
        free = replace(record, host=REUSED, timing=Timing(), attempt=1, execution=made)
        self._completed.add(free.result(job.recipe, key))
        return key

    def _record(self, job: Job) -> Record | None:
        first = job.queries[0]
        if first.part is None:
            return self._known.get((job.recipe.id, job.queries, first.kind))
        whole = tuple(Query(name, first.split) for name in self._tasks)
        for what in ("score", RACED):
            record = self._known.get((job.recipe.id, whole, what))
            if record is None:
                continue
            by_task = {r.query.task: r for r in record.results}
            parts = [self._part(by_task[query.task], query) for query in job.queries]
            if all(parts):
                return replace(record, queries=job.queries, results=tuple(p for p in parts if p))
        return None

    def _part(self, found: QueryResult, query: Query) -> QueryResult | None:
        """What ``found`` has of a part of its examples; None if some of them were not met."""
        places = found.positions if found.positions is not None else range(found.examples)
        at = {position: i for i, position in enumerate(places)}
        wanted = self._tasks[query.task].positions(query.split, query.part or (0, 0))
        if any(position not in at for position in wanted):
            return None
        part = restricted(found, [at[position] for position in wanted])
        return replace(part, query=query, positions=None)

    def wait(self, keys: Collection[int] | None = None) -> JobResult:
        return self._completed.take(keys) or self._pool.wait(keys)

    def cancel(self, keys: Collection[int]) -> frozenset[int]:
        return self._pool.cancel(keys)

    def stats(self) -> tuple[HostStats, ...]:
        return self._pool.stats()

    def events(self) -> tuple[PoolEvent, ...]:
        return self._pool.events()

    def close(self) -> None:
        self._completed.clear()
        self._pool.close()


def _runs(patterns: Sequence[Path], run_dir: Path) -> tuple[list[Path], list[str]]:
    """The folders meant: of wildcards the runs only, of a plain path that folder whatever it holds.

    And a line for each pattern of which there are none.
    """
    found: dict[Path, None] = {}
    notes = []
    for pattern in patterns:
        if glob.has_magic(str(pattern)) and not pattern.exists():
            paths = [Path(p) for p in sorted(glob.glob(str(pattern)))]
            runs = [p for p in paths if (p / START_FILE).is_file()]
            found |= dict.fromkeys(runs)
            notes += [] if runs else [f"{pattern}: no run there"]
        else:
            found[pattern] = None
    return [folder for folder in found if folder.resolve() != run_dir.resolve()], notes


def _deciding(made: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides every score, by a name that a person understands."""
    versions = {name: made["versions"].get(name) for name in DECISIVE if name != "cmaes"}
    return {
        "base": made["founders"]["base"],
        "processor": made.get("processor"),
        **{f"the base's {name}": digest for name, digest in made.get("base_files", {}).items()},
        **{name: digest for name, digest in made["config"].items() if name.startswith("engine.")},
        **{f"code in {name}/": made["code"][name] for name in _CODE},
        **{f"the file of {name}": digest for name, digest in made["functions"].items()},
        **{f"version of {name}": version for name, version in versions.items()},
    }


def _scored(made: Mapping[str, Any], query: Query) -> dict[str, Any]:
    """All that decides one task's scores on one split."""
    prefix = f"tasks.{query.task}."
    settings = {k: v for k, v in made["config"].items() if k.startswith(prefix)}
    kept = {k: v for k, v in settings.items() if not k.removeprefix(prefix).startswith(_NOT_SCORES)}
    if query.split == "dev":  # a race asks in other batches
        kept |= {k: v for k, v in made["config"].items() if k.startswith("racing.rungs")}
    return {**kept, "examples": made["tasks"].get(f"{query.task}.{query.split}")}
