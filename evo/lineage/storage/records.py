"""Records: what is kept of a finished job, as rows of ``evaluations`` and back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import pyarrow as pa

from cluster.jobs import Execution, Job, JobResult, Kind, Query, QueryResult, Timing
from fitness.splits import Split
from operators.recipe import Recipe

Key: TypeAlias = tuple[str, str, str]
"""Individual, split, and what was asked, as :func:`what_of` says: what is never asked twice."""

RACED = "raced"
"""What was asked of an individual that was dropped before it met all examples."""


def what_of(queries: Sequence[Query]) -> str:
    """``score``, ``answers``, ``influence``; of a part of the examples ``score:25:50``."""
    part = queries[0].part
    if part is None:
        return queries[0].kind
    last = next(a.part for a in reversed(queries) if a.task == queries[0].task)
    return f"{queries[0].kind}:{part[0]}:{(last or part)[1]}"


def kind_text(query: Query) -> str:
    """A query's kind and part, in a word; :func:`query_from` reads it."""
    return what_of([query])


def query_from(task: str, split: Split, text: str) -> Query:
    """The query whose :func:`kind_text` this is."""
    kind, _, part = text.partition(":")
    start, _, stop = part.partition(":")
    return Query(task, split, cast(Kind, kind), (int(start), int(stop)) if part else None)


@dataclass(frozen=True, slots=True)
class Record:
    """A finished job as it was recorded: all of it but the recipe, which the replay supplies.

    ``at_s`` is the run's clock when it ended.
    """

    individual: str
    queries: tuple[Query, ...]
    results: tuple[QueryResult, ...]
    host: str
    timing: Timing
    attempt: int
    error: str
    at_s: float
    execution: Execution

    @property
    def key(self) -> Key:
        raced = any(r.positions is not None for r in self.results)
        return self.individual, self.queries[0].split, RACED if raced else what_of(self.queries)

    def result(self, recipe: Recipe, key: int = -1) -> JobResult:
        """The job's result, as the pool gave it."""
        job = Job(recipe, self.queries, key, self.attempt)
        return JobResult(
            job, self.results, self.host, self.timing, self.error, self.at_s, self.execution
        )


def evaluation_rows(result: JobResult) -> list[dict[str, Any]]:
    """A row of ``evaluations`` for each task, without the generation."""
    job, timing, share = result.job, result.timing, 1.0 / len(result.job.queries)
    scored = {r.query: r for r in result.results}
    rows = []
    tokens = result.execution.tokens or (None,) * len(job.queries)
    for query, count in zip(job.queries, tokens, strict=True):
        found = scored.get(query)
        rows.append(
            {
                "individual": job.recipe.id,
                "task": query.task,
                "split": query.split,
                "score": found.mean if found else None,
                "standard_error": found.standard_error if found else None,
                "examples": found.examples if found else 0,
                "seconds": timing.total_s * share,
                "build_seconds": timing.build_s * share,
                "model_seconds": timing.model_s * share,
                "tokens": count,
                "weights": result.execution.weights or None,
                "at_seconds": result.at_s,
                "host": result.host,
                "attempt": job.attempt,
                "status": _status(found),
                "error": result.error or None,
            }
        )
    return rows


def _status(found: QueryResult | None) -> str:
    if found is None:
        return "failed"
    return "ok" if found.positions is None else RACED


def record_from(
    rows: Sequence[Mapping[str, Any]], queries: Sequence[Query], items: Sequence["Items"]
) -> Record:
    """The record whose rows these are: one for each query, with its items."""
    first = rows[0]
    results = tuple(
        QueryResult(
            query,
            found.values,
            found.answers,
            r["score"],
            r["standard_error"],
            found.positions if r["status"] == RACED else None,
        )
        for query, r, found in zip(queries, rows, items, strict=True)
        if r["status"] != "failed"
    )
    build, model = (sum(r[name] for r in rows) for name in ("build_seconds", "model_seconds"))
    total = sum(r["seconds"] for r in rows)
    tokens = tuple(r["tokens"] for r in rows)
    return Record(
        first["individual"],
        tuple(queries),
        results,
        first["host"],
        Timing(build, model, max(0.0, total - build - model)),
        first["attempt"],
        first["error"] or "",
        first["at_seconds"],
        Execution(first["weights"] or "", () if None in tokens else tokens),
    )


@dataclass(frozen=True, slots=True)
class Items:
    """The examples of one row of ``evaluations``: values, answers, and positions in the file."""

    values: tuple[float, ...] = ()
    answers: tuple[Any, ...] = ()
    positions: tuple[int, ...] = ()


def records_from(evaluations: pa.Table, items: pa.Table) -> list[Record]:
    """The records of one commit's ``evaluations`` and ``items``, in the order recorded."""
    values = items.column("value").to_pylist()
    answers = items.column("answer").to_pylist()
    positions = items.column("example").to_pylist()
    names = (items.column(n).to_pylist() for n in ("individual", "task", "split"))
    spans: dict[tuple[str, str, str], list[int]] = {}
    for at, key in enumerate(zip(*names, strict=True)):
        spans.setdefault(key, [at, at])[1] = at + 1
    found = {
        key: Items(*(tuple(column[a:b]) for column in (values, answers, positions)))
        for key, (a, b) in spans.items()
    }
    return [
        record_from(
            rows,
            [Query(r["task"], r["split"]) for r in rows],
            [found.get((r["individual"], r["task"], r["split"]), Items()) for r in rows],
        )
        for rows in by_job(evaluations.to_pylist())
    ]


def by_job(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of ``evaluations`` in groups: those of one individual on one split stand together."""
    groups: list[list[dict[str, Any]]] = []
    for row in rows:
        last = groups[-1][0] if groups else None
        same = last and (last["individual"], last["split"]) == (row["individual"], row["split"])
        if same and all(row["task"] != r["task"] for r in groups[-1]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
