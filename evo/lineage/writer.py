"""Lineage as it is written: rows gather in memory and are committed as Parquet, whole or not at all."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.jobs import JobResult
from evo.algorithms.protocol import Candidate, Scored
from evo.lineage.schema import SCHEMAS
from operators.recipe import describe
from operators.recipe_json import to_json

FINAL = "final"


class LineageWriter:
    """Gathers the rows of one generation; :meth:`commit` writes one file for each table."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}

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

    def evaluation(self, result: JobResult, generation: int) -> None:
        """Record a job's end: a row for each task, and a row for each example."""
        job, timing, share = result.job, result.timing, 1.0 / len(result.job.asks)
        scored = {r.ask: r for r in result.results}
        for ask in job.asks:
            found = scored.get(ask)
            self._rows["evaluations"].append(
                {
                    "individual": job.recipe.id,
                    "generation": generation,
                    "task": ask.task,
                    "split": ask.split,
                    "score": found.mean if found else None,
                    "standard_error": found.standard_error if found else None,
                    "examples": len(found.values) if found else 0,
                    "seconds": timing.total_s * share,
                    "build_seconds": timing.build_s * share,
                    "model_seconds": timing.model_s * share,
                    "host": result.host,
                    "attempt": job.attempt,
                    "status": "ok" if found else "failed",
                    "error": result.error or None,
                }
            )
            if found:
                self._rows["items"] += [
                    {
                        "individual": job.recipe.id,
                        "task": ask.task,
                        "split": ask.split,
                        "example": i,
                        "value": value,
                        "answer": None if answer is None else str(answer),
                    }
                    for i, (value, answer) in enumerate(
                        zip(found.values, found.answers, strict=True)
                    )
                ]

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

    def event(self, kind: str, detail: str, generation: int) -> None:
        self._rows["events"].append(
            {"time": datetime.now(UTC), "generation": generation, "kind": kind, "detail": detail}
        )

    def commit(self, name: str | int) -> None:
        """Write all rows gathered, as ``<table>/<name>.parquet`` for each table that has some.

        ``population`` comes last: a generation that is in it is whole.
        """
        stem = f"{name:06d}" if isinstance(name, int) else name
        for table in sorted(SCHEMAS, key=lambda t: t == "population"):
            rows = self._rows[table]
            if rows:
                data = pa.Table.from_pylist(rows, schema=SCHEMAS[table])
                _write_whole(data, self._folder / table / f"{stem}.parquet")
            self._rows[table] = []


def _write_whole(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
