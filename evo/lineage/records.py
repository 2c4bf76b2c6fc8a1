"""Records: what is kept of a finished job, as rows of ``evaluations`` and back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from cluster.jobs import Ask, AskResult, Job, JobResult, Kind, Made, Timing
from operators.recipe import Recipe

Key: TypeAlias = tuple[str, str, Kind]  # individual, split, kind: what is never asked twice


@dataclass(frozen=True, slots=True)
class Record:
    """A finished job as it was recorded: all of it but the recipe, which the replay supplies.

    ``at_s`` is the run's clock when it ended.
    """

    individual: str
    asks: tuple[Ask, ...]
    results: tuple[AskResult, ...]
    host: str
    timing: Timing
    attempt: int
    error: str
    at_s: float
    made: Made

    @property
    def key(self) -> Key:
        return self.individual, self.asks[0].split, self.asks[0].kind

    def result(self, key: int, recipe: Recipe) -> JobResult:
        """The job's result, as the pool gave it."""
        job = Job(key, recipe, self.asks, self.attempt)
        return JobResult(
            job, self.results, self.host, self.timing, self.error, self.at_s, self.made
        )


def evaluation_rows(result: JobResult) -> list[dict[str, Any]]:
    """A row of ``evaluations`` for each task, without the generation."""
    job, timing, share = result.job, result.timing, 1.0 / len(result.job.asks)
    scored = {r.ask: r for r in result.results}
    rows = []
    tokens = result.made.tokens or (None,) * len(job.asks)
    for ask, count in zip(job.asks, tokens, strict=True):
        found = scored.get(ask)
        rows.append(
            {
                "individual": job.recipe.id,
                "task": ask.task,
                "split": ask.split,
                "score": found.mean if found else None,
                "standard_error": found.standard_error if found else None,
                "examples": found.examples if found else 0,
                "seconds": timing.total_s * share,
                "build_seconds": timing.build_s * share,
                "model_seconds": timing.model_s * share,
                "tokens": count,
                "weights": result.made.weights or None,
                "at_seconds": result.at_s,
                "host": result.host,
                "attempt": job.attempt,
                "status": "ok" if found else "failed",
                "error": result.error or None,
            }
        )
    return rows


def record_from(rows: list[dict[str, Any]], kind: Kind, items: "Items") -> Record:
    """The record whose rows these are: one for each task, in the order asked.

    ``items`` gives the per-example values and answers by (individual, task, split).
    """
    first = rows[0]
    asks = tuple(Ask(r["task"], r["split"], kind) for r in rows)
    results = tuple(
        AskResult(
            ask, *items[r["individual"], r["task"], r["split"]], r["score"], r["standard_error"]
        )
        for ask, r in zip(asks, rows, strict=True)
        if r["status"] == "ok"
    )
    build, model = (sum(r[name] for r in rows) for name in ("build_seconds", "model_seconds"))
    total = sum(r["seconds"] for r in rows)
    tokens = tuple(r["tokens"] for r in rows)
    return Record(
        first["individual"],
        asks,
        results,
        first["host"],
        Timing(build, model, max(0.0, total - build - model)),
        first["attempt"],
        first["error"] or "",
        first["at_seconds"],
        Made(first["weights"] or "", () if None in tokens else tokens),
    )


Items: TypeAlias = Mapping[tuple[str, str, str], tuple[tuple[float, ...], tuple[Any, ...]]]


def records_from(evaluations: pa.Table, items: pa.Table) -> list[Record]:
    """The records of one commit's ``evaluations`` and ``items``, in the order recorded."""
    values = items.column("value").to_pylist()
    answers = items.column("answer").to_pylist()
    names = (items.column(n).to_pylist() for n in ("individual", "task", "split"))
    spans: dict[tuple[str, str, str], list[int]] = {}
    for at, key in enumerate(zip(*names, strict=True)):
        spans.setdefault(key, [at, at])[1] = at + 1
    found = {k: (tuple(values[a:b]), tuple(answers[a:b])) for k, (a, b) in spans.items()}
    return [record_from(rows, "score", found) for rows in by_job(evaluations.to_pylist())]


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
