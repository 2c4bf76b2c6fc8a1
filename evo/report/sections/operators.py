"""What each operator's children came to."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evo.report.contract import OperatorFacts
from evo.report.data.run_data import RunData

OPERATORS = 50
Flags = NDArray[np.bool_]


def operators(data: RunData) -> list[OperatorFacts]:
    """A row for each operator as recorded, most children first. Founders are nobody's children."""
    evaluated, table = data.dev_scores, data.individuals
    if not evaluated.ids:
        return []
    names = (
        table.column("operator")
        .take(pa.array(data.row_of_scored))
        .combine_chunks()
        .dictionary_encode()
    )
    code = names.indices.to_numpy(zero_copy_only=False)
    failed = np.isnan(evaluated.fitness)
    survived = _survived(data)
    ended = np.isin(evaluated.generation, data.population.column("generation").to_numpy())
    improved = _improved(data)
    found: list[OperatorFacts] = []
    for number, name in enumerate(names.dictionary.to_pylist()):
        mine = code == number
        if name == "founder":
            continue
        alive = mine & ~failed
        children = int(mine.sum())
        lived = int(survived[mine].sum())
        found.append(
            {
                "operator": name,
                "children": children,
                "failed": int((mine & failed).sum()),
                "survived": lived,
                "survival": lived / max(1, int((mine & ended).sum())),
                "improved": int(improved[mine].sum()),
                "best": float(evaluated.fitness[alive].max()) if alive.any() else None,
            }
        )
    return sorted(found, key=lambda r: (-r["children"], r["operator"]))[:OPERATORS]


def _survived(data: RunData) -> Flags:
    """Of each trial, whether it was in the population at the end of its own generation."""
    evaluated, population = data.dev_scores, data.population
    rows = data.rows_of(population.column("individual").combine_chunks())
    at = data.scored_of_row[rows]
    alive = (rows >= 0) & (at >= 0)
    number = population.column("generation").to_numpy()
    found = np.zeros(len(evaluated.ids), np.bool_)
    found[at[alive & (evaluated.generation[at] == number)]] = True
    return found


def _improved(data: RunData) -> Flags:
    """Of each trial, whether it is fitter than every one of its parents, as far as those have a fitness."""
    evaluated, (starts, parents) = data.dev_scores, data.parents
    fitness = np.full(len(data.scored_of_row) + 1, -np.inf)  # the last is for who is unknown
    fitness[data.row_of_scored] = np.where(np.isnan(evaluated.fitness), -np.inf, evaluated.fitness)
    of_parents = np.append(fitness[parents], -np.inf)
    best = np.maximum.reduceat(of_parents, starts[:-1])  # of an empty stretch: what follows it
    best[starts[1:] == starts[:-1]] = -np.inf
    mine = best[data.row_of_scored]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(mine) & (evaluated.fitness > mine), np.bool_)
