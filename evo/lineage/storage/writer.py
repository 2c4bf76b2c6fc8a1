"""Lineage as it is written: jobs to the journal as they end, generations to Parquet as they finish."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.jobs import JobResult, QueryResult
from evo.algorithms.protocol import Candidate, Scored
from evo.errors import EvoError
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import commit
from evo.lineage.storage.journal import Journal
from evo.lineage.storage.records import evaluation_rows
from operators.recipe import describe
from operators.recipe.canonical import to_json


class LineageWriter:
    """Gathers the rows of one generation; :meth:`commit` writes one file for each table that has some.

    Args:
        folder: of the lineage.
        journal: begun anew with each commit; None where another lineage's journal has all that counts.
        committed: the individuals that earlier commits of this run evaluated, by the commit's name. What
            a replay gathers for those is compared with them, and not written again.
        known: individuals that an earlier final commit holds; they are not written again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        journal: Journal | None = None,
        committed: Mapping[str, Sequence[str]] | None = None,
        known: Collection[str] = (),
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._committed = dict(committed or {})
        self._known = set(known)
        self._number = 0  # of the search's next commit
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
        self._items: list[tuple[str, QueryResult]] = []
        self._news: list[dict[str, Any]] = []  # events of this process, which no replay repeats

    def individual(self, candidate: Candidate, generation: int) -> None:
        """Record an individual, the first time that it is met."""
        if candidate.id in self._known:
            return
        self._known.add(candidate.id)
        self._rows["individuals"].append(
            {
                "id": candidate.id,
                "generation": generation,
                "operator": candidate.operator,
                "parents": list(candidate.parents),
                "recipe": to_json(candidate.recipe),
                "description": describe(candidate.recipe),
                "seed": candidate.seed,
            }
        )

    def evaluation(self, result: JobResult, generation: int, fitness: float) -> None:
        """Record a job's end: a row for each task, and a row for each example. NaN fitness: it failed."""
        more = {"generation": generation, "fitness": None if math.isnan(fitness) else fitness}
        self._rows["evaluations"] += [{**row, **more} for row in evaluation_rows(result)]
        self._items += [(result.job.recipe.id, found) for found in result.results]

    def population(self, members: Iterable[Scored], generation: int) -> None:
        """Record who is alive at the end of a generation, best first."""
        self._rows["population"] += [
            {
                "generation": generation,
                "rank": rank,
                "individual": member.candidate.id,
                "fitness": member.fitness if member.fitness == member.fitness else None,
            }
            for rank, member in enumerate(members)
        ]

    def event(self, kind: str, detail: str, generation: int, *, news: bool = False) -> None:
        """Record an event; ``news`` is what happens now, even while a replay repeats the past."""
        (self._news if news else self._rows["events"]).append(
            {"time": datetime.now(UTC), "generation": generation, "kind": kind, "detail": detail}
        )

    def commit(self, name: str = "") -> None:
        """Write all rows gathered as ``<table>/<name>.parquet``; they count all at once, or not at all.

        Without a name it is the next numbered commit of the search.

        Raises:
            EvoError: the run committed this before, and other individuals than now.
            OSError: it can't be written; then what was committed and the journal stay as they are.
        """
        stem = name or f"{self._number:06d}"
        self._number += not name
        rows, items = self._rows, self._items
        self._rows, self._items = {table: [] for table in SCHEMAS}, []
        if stem in self._committed:
            _compare(stem, self._committed[stem], [r["individual"] for r in rows["evaluations"]])
            return
        rows["events"], self._news = [*rows["events"], *self._news], []
        tables = {
            table: pa.Table.from_pylist(rows[table], schema=SCHEMAS[table])
            for table in SCHEMAS
            if rows[table]
        }
        if items:
            tables["items"] = _items_table(items)
        commit(self._folder, stem, tables)
        if self._journal is not None:
            self._journal.reset()


def _items_table(items: Sequence[tuple[str, QueryResult]]) -> pa.Table:
    """A row for each example; in columns, since these are most of a lineage's rows."""
    counts = [found.examples for _, found in items]
    whose = pa.array(np.repeat(np.arange(len(items)), counts))
    columns = {
        "individual": pa.array([name for name, _ in items]).take(whose),
        "task": pa.array([found.query.task for _, found in items]).take(whose),
        "split": pa.array([found.query.split for _, found in items]).take(whose),
        "example": np.concatenate([_positions(found) for _, found in items]),
        "value": np.concatenate([np.asarray(found.values, np.float64) for _, found in items]),
        "answer": pa.array(
            [None if a is None else str(a) for _, found in items for a in found.answers],
            pa.string(),
        ),
    }
    return pa.table(columns, schema=SCHEMAS["items"])


def _positions(found: QueryResult) -> npt.NDArray[np.int32]:
    if found.positions is None:
        return np.arange(found.examples, dtype=np.int32)
    return np.array(found.positions, dtype=np.int32)


def _compare(name: str, then: Sequence[str], now: Sequence[str]) -> None:
    if list(then) == list(now):
        return
    at = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), None)
    at = min(len(then), len(now)) if at is None else at
    was, is_ = (ids[at][:12] if at < len(ids) else "no individual" for ids in (then, now))
    raise EvoError(
        f"commit {name}: evaluation {at} was of {was} when it was written, and the algorithm now asks for "
        f"{is_}. What decides the search has changed (this package, numpy, cmaes): resume with the versions "
        "in manifest.json, or start a new run"
    )
