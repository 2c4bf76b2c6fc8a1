"""Lineages written by hand, for what no small run has: many of everything, other metrics, paths;

and the facts of a lineage, held against their contract.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pyarrow as pa
from manifests import made_manifest

import evo.lineage
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import commit
from evo.report.contract import Facts
from evo.report.facts import facts
from evo.run_dir import RunDir
from evo.run_dir.manifest import rows_digest
from fitness.metrics import METRICS
from operators.recipe import Founder, Recipe, describe
from operators.recipe.canonical import to_json

Values = Mapping[str, Sequence[float]]  # by task
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Child:
    """One individual as it is to be recorded; ``values`` of None is one that failed."""

    recipe: Recipe
    values: Values | None
    operator: str = "founder"
    parents: Sequence[str] = ()
    answers: Sequence[str | None] | None = None
    host: str = "host-0"
    tokens: int | None = None


@dataclass
class Written:
    """A run's folder under way."""

    run_dir: Path
    tasks: Sequence[dict[str, Any]]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {n: [] for n in SCHEMAS})

    def begin(self, examples: Mapping[str, Sequence[dict[str, Any]]] | None = None) -> None:
        """config.json and manifest.json; ``examples`` are the rows of "task.split"."""
        self.run_dir.mkdir(parents=True)
        config = {
            "tasks": list(self.tasks),
            "algorithm": {"name": "by hand"},
            "budget": {"evaluations": None},
            "engine": {"kind": "module"},
            "seed": 7,
        }
        (self.run_dir / "config.json").write_text(json.dumps(config))
        digests = {name: rows_digest(rows) for name, rows in (examples or {}).items()}
        names = {t["name"]: METRICS.get(t["metric"]) for t in self.tasks}
        lower = [name for name, metric in names.items() if metric and not metric.higher_is_better]
        RunDir(self.run_dir).write_manifest(made_manifest(digests, 2, lower))

    def generation(self, number: int, children: Sequence[Child], alive: Sequence[Recipe]) -> None:
        for child in children:
            self.individual(child, number)
            self.score(child, number, "dev")
        self.rows["population"] += [
            {"generation": number, "rank": i, "individual": r.id, "fitness": None}
            for i, r in enumerate(alive)
        ]
        self.commit(f"{number:06d}")

    def individual(self, child: Child, number: int) -> None:
        self.rows["individuals"].append(
            {
                "id": child.recipe.id,
                "generation": number,
                "operator": child.operator,
                "parents": list(child.parents),
                "recipe": to_json(child.recipe),
                "description": describe(child.recipe),
                "seed": 0,
            }
        )

    def score(self, child: Child, number: int, split: str) -> None:
        means = {t: float(np.mean(v)) for t, v in (child.values or {}).items()}
        for task in self.tasks:
            name = task["name"]
            values = [] if child.values is None else child.values[name]
            self.rows["evaluations"].append(
                {
                    "individual": child.recipe.id,
                    "generation": number,
                    "task": name,
                    "split": split,
                    "score": means.get(name),
                    "standard_error": 0.01 if child.values else None,
                    "fitness": None,
                    "examples": len(values),
                    "seconds": 1.0,
                    "build_seconds": 0.25,
                    "model_seconds": 0.5,
                    "tokens": child.tokens,
                    "weights": None,
                    "at_seconds": float(number),
                    "host": child.host,
                    "attempt": 1,
                    "status": "ok" if child.values else "failed",
                    "error": None if child.values else "out of memory",
                }
            )
            answers = child.answers or [None] * len(values)
            self.rows["items"] += [
                {
                    "individual": child.recipe.id,
                    "task": name,
                    "split": split,
                    "example": i,
                    "value": float(v),
                    "answer": a,
                }
                for i, (v, a) in enumerate(zip(values, answers, strict=True))
            ]

    def event(self, kind: str, number: int) -> None:
        at = START + timedelta(seconds=len(self.rows["events"]))
        self.rows["events"].append(
            {"time": at, "generation": number, "kind": kind, "detail": f"{kind} in {number}"}
        )

    def commit(self, name: str) -> None:
        tables = {t: pa.Table.from_pylist(r, schema=SCHEMAS[t]) for t, r in self.rows.items() if r}
        commit(self.run_dir / "lineage", name, tables)
        self.rows = {n: [] for n in SCHEMAS}


def founder(name: str) -> Founder:
    return Founder(name, f"{name:0>64}")


def fits(value: Any, hint: Any) -> bool:
    """Whether plain data is of a type of the contract, to the last key."""
    if is_typeddict(hint):
        keys = get_type_hints(hint)
        return (
            isinstance(value, dict)
            and value.keys() == keys.keys()
            and all(fits(value[k], h) for k, h in keys.items())
        )
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin is list:
        return isinstance(value, list) and all(fits(v, args[0]) for v in value)
    if origin is tuple:
        return len(value) == len(args) and all(map(fits, value, args))
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(k, args[0]) and fits(v, args[1]) for k, v in value.items()
        )
    if args:
        return any(fits(value, a) for a in args)
    return type(value) in ((float, int) if hint is float else (hint,))


def report_of(run_dir: Path) -> Facts:
    """The facts of a run: as the contract has them, and JSON without NaN."""
    found = facts(evo.lineage.open(run_dir))
    for part, hint in get_type_hints(Facts).items():
        assert fits(found[part], hint), (part, found[part])  # type: ignore[literal-required]
    json.dumps(found, allow_nan=False)
    return found
