"""Snapshot: how a run stands, in the few numbers that a terminal has room for."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow.compute as pc

from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.report.contract import OperatorFacts, State
from evo.report.data.reading import read
from evo.report.data.run_data import RunData
from evo.report.sections.cost import cost
from evo.report.sections.operators import operators
from evo.run_dir import RunDir

TOP = 8
EVENTS = 6


@dataclass(frozen=True, slots=True)
class Point:
    """A committed generation: individuals scored by then, best so far, mean of the new ones; NaN if none."""

    generation: int
    evaluations: int
    failed: int
    seconds: float
    best: float
    mean: float


@dataclass(frozen=True, slots=True)
class Member:
    """One of the latest population, or of all while there is none."""

    id: str
    name: str
    operator: str
    fitness: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read of a run. ``pending`` are evaluations on dev that no commit holds yet; ``best`` is the
    winner, or the best so far.
    """

    state: State
    holder: str | None
    algorithm: str
    budget: int | None
    points: tuple[Point, ...]
    pending: int
    best: Member | None
    top: tuple[Member, ...]
    operators: tuple[OperatorFacts, ...]
    hosts: tuple[tuple[str, int], ...]
    events: tuple[tuple[datetime, str, str], ...]
    problem: str | None

    @property
    def evaluations(self) -> int:
        return self.pending + (self.points[-1].evaluations if self.points else 0)


def snapshot(lineage: Lineage) -> Snapshot:
    """Read how the run stands; what can't be read is left out and named in ``problem``."""
    who = RunDir(lineage.run_dir).holder()
    source = read(lineage)
    problems = list(source.problems)
    pending = 0
    try:
        pending = len(source.pending)
    except EvoError as error:
        problems.append(str(error))
    state: State = "running" if who else "stopped"
    if RunDir(lineage.run_dir).is_starting:
        state = "beginning"
    best = None if source.winner is None else _member(source, source.winner)
    rows = source.events.slice(max(0, source.events.num_rows - EVENTS)).to_pylist()
    return Snapshot(
        "finished" if source.finished else state,
        who,
        source.config.get("algorithm", {}).get("name", "unknown"),
        source.config.get("budget", {}).get("evaluations"),
        _points(source),
        pending,
        best,
        _top(source),
        tuple(operators(source)),
        tuple((h["host"], h["evaluations"]) for h in cost(source)["hosts"]),
        tuple((r["time"], r["kind"], r["detail"]) for r in rows),
        "\n".join(dict.fromkeys(problems)) or None,
    )


def _points(source: RunData) -> tuple[Point, ...]:
    trials = source.dev_scores
    numbers, first, counts = np.unique(trials.generation, return_index=True, return_counts=True)
    seconds = np.maximum.accumulate(trials.at_seconds)
    failed = np.cumsum(np.isnan(trials.fitness))
    points = []
    for number, start, end in zip(numbers, first, first + counts, strict=True):
        new = trials.fitness[start:end]
        alive = new[np.isfinite(new)]
        points.append(
            Point(
                int(number),
                int(end),
                int(failed[end - 1]),
                float(seconds[end - 1]),
                float(trials.best_so_far[end - 1]),
                float(alive.mean()) if len(alive) else float("nan"),
            )
        )
    return tuple(points)


def _top(source: RunData) -> tuple[Member, ...]:
    table = source.population
    if table.num_rows:
        latest = pc.max(table.column("generation"))
        ids = table.filter(pc.field("generation") == latest).column("individual").to_pylist()
    else:
        ids = source.dev_scores.ids
    scored = [(i, f) for i in ids if (f := source.dev_scores.of(i)) is not None]
    best = sorted(scored, key=lambda pair: -pair[1])[:TOP]
    return tuple(_member(source, i) for i, _ in best)


def _member(source: RunData, individual: str) -> Member:
    operator = str(source.about(individual)["operator"])
    fitness = source.dev_scores.of(individual)
    return Member(
        individual,
        source.name(individual),
        operator,
        float("nan") if fitness is None else fitness,
    )
