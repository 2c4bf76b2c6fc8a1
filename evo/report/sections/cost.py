"""What a run cost, and what happened to it."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evo.report.contract import CostFacts, EventFacts, HostFacts, SplitCost
from evo.report.data.run_data import RunData
from fitness.splits import SPLITS

EVENTS = 500
HOSTS = 100


def cost(data: RunData) -> CostFacts:
    """Sums over all evaluations that are recorded; startup, finals and memory as the summary has them."""
    table = data.evaluations
    times = data.summary.time if data.summary else None
    peaks = data.summary.peak_memory_bytes if data.summary else None
    memory = [m for m in (peaks.coordinator, *peaks.hosts.values()) if m] if peaks else []
    busy, build, model = (_sum(table, n) for n in ("seconds", "build_seconds", "model_seconds"))
    splits = _splits(table)
    at = data.dev_scores.at_seconds
    return {
        "evaluations": sum(r["evaluations"] for r in splits),
        "examples": int(_sum(table, "examples")),
        "tokens": _tokens(table.column("tokens")),
        "search_seconds": float(at.max()) if len(at) else 0.0,
        "busy_seconds": busy,
        "build_seconds": build,
        "model_seconds": model,
        "score_seconds": max(0.0, busy - build - model),
        "startup_seconds": times.startup_s if times else None,
        "final_seconds": times.final_s if times else None,
        "peak_memory_bytes": max(memory, default=None),
        "hosts": _hosts(table),
        "splits": splits,
    }


def _hosts(table: pa.Table) -> list[HostFacts]:
    """Most seconds first; those beyond the first hundred in one row."""
    rows = _grouped(table, "host")
    found: list[HostFacts] = [
        {
            "host": r["host"],
            "evaluations": r["jobs"],
            "seconds": r["seconds_sum"],
            "tokens": r["tokens_sum"],
            "failed": r["failed"],
        }
        for r in sorted(rows, key=lambda r: (-r["seconds_sum"], r["host"]))
    ]
    rest = found[HOSTS:]
    if rest:
        tokens = [r["tokens"] for r in rest if r["tokens"] is not None]
        found[HOSTS:] = [
            {
                "host": f"{len(rest)} more",
                "evaluations": sum(r["evaluations"] for r in rest),
                "seconds": sum(r["seconds"] for r in rest),
                "tokens": sum(tokens) if tokens else None,
                "failed": sum(r["failed"] for r in rest),
            }
        ]
    return found


def _splits(table: pa.Table) -> list[SplitCost]:
    rows = {r["split"]: r for r in _grouped(table, "split")}
    return [
        {
            "split": split,
            "evaluations": rows[split]["jobs"],
            "seconds": rows[split]["seconds_sum"],
            "examples": rows[split]["examples_sum"],
        }
        for split in SPLITS
        if split in rows
    ]


def _grouped(table: pa.Table, key: str) -> list[dict[str, Any]]:
    """Sums by ``key``; an evaluation counts once, and not once for each task."""
    task = table.column("task")
    first = pc.equal(task, task[0]) if table.num_rows else pc.equal(task, "")
    failed = pc.and_(first, pc.equal(table.column("status"), "failed"))
    counted = table.select([key, "seconds", "examples", "tokens"])
    counted = counted.append_column("job", first.cast(pa.int64()))
    counted = counted.append_column("lost", failed.cast(pa.int64()))
    sums = counted.group_by(key).aggregate(
        [(name, "sum") for name in ("seconds", "examples", "tokens", "job", "lost")]
    )
    rows: list[dict[str, Any]] = sums.to_pylist()
    return [{**r, "jobs": r["job_sum"], "failed": r["lost_sum"]} for r in rows]


def _sum(table: pa.Table, name: str) -> float:
    return float(np.sum(table.column(name).to_numpy()))


def _tokens(column: pa.ChunkedArray) -> int | None:
    total = pc.sum(column).as_py()
    return None if total is None else int(total)


def events(data: RunData) -> EventFacts:
    """The rows in order of time. Of too many, the latest of the kinds that have most are kept."""
    rows = data.events.to_pylist()
    counts = Counter(r["kind"] for r in rows)
    order = sorted(range(len(rows)), key=lambda i: (counts[rows[i]["kind"]], -i))
    kept = sorted(order[:EVENTS], key=lambda i: (rows[i]["time"], i))
    return {
        "rows": [{**rows[i], "time": rows[i]["time"].isoformat()} for i in kept],  # type: ignore[typeddict-item]
        "left_out": len(rows) - len(kept),
        "counts": dict(counts.most_common()),
    }
