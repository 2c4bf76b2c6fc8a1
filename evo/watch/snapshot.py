"""A snapshot of a run for the terminal: its status, its curve, its best individuals, its latest events."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow.compute as pc

from evo.lineage.read.lineage import Lineage
from evo.report.contract import OperatorFacts
from evo.report.data.reading import read
from evo.report.data.run_data import RunData
from evo.report.sections.cost import cost
from evo.report.sections.operators import operators
from evo.report.status import RunStatus, status_of

TOP = 8
EVENTS = 6


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One committed generation; fitness values are NaN if every individual failed.

    Attributes:
        evaluations: individuals evaluated by its end; ``failed`` of them failed.
        seconds: seconds of search by its end.
        best: best fitness so far.
        mean: mean fitness of its new individuals.
    """

    generation: int
    evaluations: int
    failed: int
    seconds: float
    best: float
    mean: float


@dataclass(frozen=True, slots=True)
class ScoredIndividual:
    """An individual with its fitness on dev; NaN if it failed."""

    id: str
    name: str
    operator: str
    fitness: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the terminal shows of a run.

    Attributes:
        best: the winner, or the best individual so far.
        top: the best of the latest population, or of all individuals before the first population.
        hosts: name and number of evaluations of each host.
        events: time, kind and detail of the latest events.
    """

    status: RunStatus
    points: tuple[CurvePoint, ...]
    best: ScoredIndividual | None
    top: tuple[ScoredIndividual, ...]
    operators: tuple[OperatorFacts, ...]
    hosts: tuple[tuple[str, int], ...]
    events: tuple[tuple[datetime, str, str], ...]


def snapshot(lineage: Lineage) -> Snapshot:
    """Read a run; ``status.problem`` names what cannot be read."""
    data = read(lineage)
    rows = data.events.slice(max(0, data.events.num_rows - EVENTS)).to_pylist()
    return Snapshot(
        status_of(data),
        _points(data),
        None if data.winner is None else _scored(data, data.winner),
        _top(data),
        tuple(operators(data)),
        tuple((h["host"], h["evaluations"]) for h in cost(data)["hosts"]),
        tuple((r["time"], r["kind"], r["detail"]) for r in rows),
    )


def _points(data: RunData) -> tuple[CurvePoint, ...]:
    scores = data.dev_scores
    numbers, first, counts = np.unique(scores.generation, return_index=True, return_counts=True)
    seconds = np.maximum.accumulate(scores.at_seconds)
    failed = np.cumsum(np.isnan(scores.fitness))
    points = []
    for number, start, end in zip(numbers, first, first + counts, strict=True):
        new = scores.fitness[start:end]
        finite = new[np.isfinite(new)]
        points.append(
            CurvePoint(
                int(number),
                int(end),
                int(failed[end - 1]),
                float(seconds[end - 1]),
                float(scores.best_so_far[end - 1]),
                float(finite.mean()) if len(finite) else float("nan"),
            )
        )
    return tuple(points)


def _top(data: RunData) -> tuple[ScoredIndividual, ...]:
    table = data.population
    if table.num_rows:
        latest = pc.max(table.column("generation"))
        ids = table.filter(pc.field("generation") == latest).column("individual").to_pylist()
    else:
        ids = data.dev_scores.ids
    scored = [(i, f) for i in ids if (f := data.dev_scores.of(i)) is not None]
    best = sorted(scored, key=lambda pair: -pair[1])[:TOP]
    return tuple(_scored(data, i) for i, _ in best)


def _scored(data: RunData, individual: str) -> ScoredIndividual:
    operator = str(data.about(individual)["operator"])
    fitness = data.dev_scores.of(individual)
    value = float("nan") if fitness is None else fitness
    return ScoredIndividual(individual, data.name(individual), operator, value)
