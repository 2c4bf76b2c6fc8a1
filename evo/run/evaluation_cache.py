"""The evaluation cache: evaluations of other runs, taken from their lineages.

A recipe's id contains the digests of its founders. So the scores of another run hold here too, to the last
bit, if all of :class:`evo.run_dir.manifest.ScoreInputs` is the same.
"""

import glob
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from cluster.jobs import HostStats, Job, JobResult, PoolEvent, Query, QueryResult, Timing
from cluster.pool import Completed, Pool
from evo.errors import EvoError
from evo.lineage.storage.commits import commits
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.storage.records import RACED, Record, records_from
from evo.run_dir import RunDir
from evo.run_dir.manifest import ScoreInputs
from evo.search.rungs import restricted
from fitness.splits import DEV
from fitness.tasks.task import Task

REUSED = "reused"  # recorded as the host of a cache hit
Known: TypeAlias = Mapping[tuple[str, tuple[Query, ...], str], Record]
"""Records by individual, queries, and kind of query as :func:`evo.lineage.storage.records.what_of` says."""


@dataclass(frozen=True, slots=True)
class Found:
    """Evaluations of other runs, and one line about each of these runs."""

    known: Known
    notes: tuple[str, ...] = ()


def find_reusable(patterns: Sequence[Path], made: ScoreInputs, run_dir: RunDir) -> Found:
    """Return all evaluations of the runs in ``patterns`` (paths with wildcards) that ``made`` would repeat.

    Each run counts as far as it is committed, also while it is running. ``run_dir`` itself does not count.
    A run that is resumed goes on even if the other runs are missing or damaged by now.

    Raises:
        EvoError: ``run_dir`` has not started yet, and there is no run there, or a damaged one.
    """
    known: dict[tuple[str, tuple[Query, ...], str], Record] = {}
    folders, notes = _runs(patterns, run_dir)
    for folder in folders:
        if not RunDir(folder).manifest_path.is_file():
            if not run_dir.has_run:
                name = RunDir(folder).manifest_path.name
                raise EvoError(f"reuse: {folder}: no run there (it has no {name})")
            notes.append(f"{folder}: not reused: no run there any more")
            continue
        try:
            found, difference = _evaluated(RunDir(folder), made)
        except EvoError as error:
            if not run_dir.has_run:
                raise
            notes.append(f"{folder}: not reused: {error}")
            continue
        if difference:
            notes.append(f"{folder}: not reused: {difference}")
            continue
        before = len(known)
        for record in found:
            known.setdefault((record.individual, record.queries, record.key[2]), record)
        notes.append(f"{folder}: {len(known) - before} evaluations can be reused")
    return Found(known, tuple(notes))


def _evaluated(run_dir: RunDir, now: ScoreInputs) -> tuple[list[Record], str]:
    """Return the records of a run that hold here too, or what differs so that none does."""
    then = run_dir.read_manifest().scores
    if difference := _difference(then, now):
        return [], difference
    found: list[Record] = []
    for entry in commits(run_dir.lineage):
        tables = [read_committed(run_dir.lineage, entry, t) for t in ("evaluations", "items")]
        found += (
            record
            for record in records_from(tables[0], tables[1])
            if not record.error
            and all(_decides(then, a) == _decides(now, a) for a in record.queries)
        )
    return found, ""


class ReusingPool:
    """A pool that answers cache hits at once, and submits all other jobs to ``pool``.

    Of an individual that was dropped in a race, the examples that it met are cached.
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
        # A cache hit takes no host's time.
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
        """Return the result on one part of the examples; None if some of them are not cached."""
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


def _runs(patterns: Sequence[Path], run_dir: RunDir) -> tuple[list[Path], list[str]]:
    """Return the folders: those of runs for a pattern, and a plain path as it is.

    Also one line for each pattern that matches no run.
    """
    found: dict[Path, None] = {}
    notes = []
    for pattern in patterns:
        if glob.has_magic(str(pattern)) and not pattern.exists():
            paths = [Path(p) for p in sorted(glob.glob(str(pattern)))]
            runs = [p for p in paths if RunDir(p).manifest_path.is_file()]
            found |= dict.fromkeys(runs)
            notes += [] if runs else [f"{pattern}: no run there"]
        else:
            found[pattern] = None
    return [folder for folder in found if folder.resolve() != run_dir.path.resolve()], notes


def _difference(then: ScoreInputs, now: ScoreInputs) -> str:
    """Return what decides every score and differs, in words; "" if nothing does."""
    parts = (
        ("", {"base": then.base}, {"base": now.base}),
        ("", {"processor": then.processor}, {"processor": now.processor}),
        ("the base's ", then.base_files, now.base_files),
        ("", _engine(then), _engine(now)),
        ("code in ", then.code, now.code),
        ("module ", then.user_code, now.user_code),
        ("version of ", then.versions, now.versions),
    )
    for label, was, is_ in parts:
        for name in sorted(was.keys() | is_.keys()):
            if was.get(name) != is_.get(name):
                return (
                    f"different {label}{name}"
                    if not label.startswith("the")
                    else f"{label}{name} differs"
                )
    return ""


def _engine(scores: ScoreInputs) -> dict[str, str]:
    return {k: v for k, v in scores.settings.items() if k.startswith("engine.")}


def _decides(scores: ScoreInputs, query: Query) -> dict[str, str]:
    """Return what decides one task's scores on one split."""
    prefixes = (
        f"tasks.{query.task}.",
        *(["racing."] if query.split == DEV else []),
    )  # a race queries in other batches
    kept = {k: v for k, v in scores.settings.items() if k.startswith(prefixes)}
    return {**kept, "examples": scores.examples.get(f"{query.task}.{query.split}", "")}
