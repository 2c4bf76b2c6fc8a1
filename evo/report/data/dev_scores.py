"""DevScores: the individuals of a search in the order they were scored on dev, as columns."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evo.lineage.read.best_so_far import STATIC
from fitness.splits import DEV

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DevScores:
    """Columns of equal length; fitness and standard error are NaN of what failed."""

    ids: list[str]
    generation: Ints
    at_seconds: Floats
    examples: Ints
    fitness: Floats
    standard_error: Floats

    @cached_property
    def place(self) -> dict[str, int]:
        """The position of each individual."""
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def best_so_far(self) -> Floats:
        """The best fitness up to each trial, its own included; NaN before the first that succeeded."""
        best = np.fmax.accumulate(self.fitness) if len(self.fitness) else self.fitness
        return np.asarray(best, np.float64)

    def best(self, among: Collection[str] | None = None) -> str | None:
        """The fittest, the first of equals; None where all failed."""
        chosen = (
            np.arange(len(self.ids))
            if among is None
            else np.array([self.place[i] for i in among if i in self.place], np.int64)
        )
        alive = chosen[np.isfinite(self.fitness[chosen])]
        if not len(alive):
            return None
        return self.ids[int(alive[np.argmax(self.fitness[alive])])]

    def of(self, individual: str) -> float | None:
        """An individual's fitness; None if it failed or was not tried."""
        at = self.place.get(individual)
        return None if at is None or np.isnan(self.fitness[at]) else float(self.fitness[at])


def dev_scores_of(
    individuals: pa.Table, evaluations: pa.Table, shares: Mapping[str, float]
) -> DevScores:
    """The search's part of ``evaluations``: each individual once, static baselines left out.

    ``shares`` are the tasks' signed shares of fitness, for rows that have no fitness themselves.
    """
    merges = individuals.filter(pc.starts_with(individuals.column("operator"), STATIC)).column("id")
    dev = evaluations.filter(pc.field("split") == DEV)
    rows = dev.filter(
        pc.invert(pc.is_in(dev.column("individual"), value_set=merges.combine_chunks()))
    )
    codes = rows.column("individual").combine_chunks().dictionary_encode()
    who = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    tasks = rows.column("task").combine_chunks().dictionary_encode()
    task = tasks.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    count = len(codes.dictionary)
    _, first = np.unique(who * max(1, len(tasks.dictionary)) + task, return_index=True)
    first.sort()  # a row for each individual and task, in the order recorded
    rows, who, task = rows.take(pa.array(first)), who[first], task[first]
    share = np.array([shares.get(t, 0.0) for t in tasks.dictionary.to_pylist()])[task]
    score, error, fitness = (_floats(rows, n) for n in ("score", "standard_error", "fitness"))
    summed = np.bincount(who, score * share, count)
    given = np.full(count, np.nan)
    given[who] = fitness
    at = np.zeros(count)
    at[who] = _floats(rows, "at_seconds")
    generation = np.zeros(count, np.int64)
    generation[who] = rows.column("generation").to_numpy()
    return DevScores(
        codes.dictionary.to_pylist(),
        generation,
        at,
        np.bincount(who, _floats(rows, "examples"), count).astype(np.int64),
        np.where(np.isnan(summed), np.nan, np.where(np.isnan(given), summed, given)),
        np.sqrt(np.bincount(who, (error * share) ** 2, count)),
    )


def _floats(rows: pa.Table, name: str) -> Floats:
    column = rows.column(name).cast(pa.float64())
    return np.asarray(column.to_numpy(), np.float64)
