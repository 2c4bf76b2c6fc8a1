"""What each operator's children came to."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evo.report.contract import OperatorFacts
from evo.report.data.run_data import RunData

OPERATORS = 50
Flags = NDArray[np.bool_]


def operators(source: RunData) -> list[OperatorFacts]:
    """A row for each operator as recorded, most children first. Founders are nobody's children."""
    trials, table = source.dev_scores, source.individuals
    if not trials.ids:
        return []
    names = (
        table.column("operator")
        .take(pa.array(source.row_of_scored))
        .combine_chunks()
        .dictionary_encode()
    )
    code = names.indices.to_numpy(zero_copy_only=False)
    failed = np.isnan(trials.fitness)
    survived = _survived(source)
    ended = np.isin(trials.generation, source.population.column("generation").to_numpy())
    improved = _improved(source)
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
                "best": float(trials.fitness[alive].max()) if alive.any() else None,
            }
        )
    return sorted(found, key=lambda r: (-r["children"], r["operator"]))[:OPERATORS]


def _survived(source: RunData) -> Flags:
    """Of each trial, whether it was in the population at the end of its own generation."""
    trials, population = source.dev_scores, source.population
    rows = source.rows_of(population.column("individual").combine_chunks())
    at = source.scored_of_row[rows]
    alive = (rows >= 0) & (at >= 0)
    number = population.column("generation").to_numpy()
    found = np.zeros(len(trials.ids), np.bool_)
    found[at[alive & (trials.generation[at] == number)]] = True
    return found


def _improved(source: RunData) -> Flags:
    """Of each trial, whether it is fitter than every one of its parents, as far as those have a fitness."""
    trials, (starts, parents) = source.dev_scores, source.parents
    fitness = np.full(len(source.scored_of_row) + 1, -np.inf)  # the last is for who is unknown
    fitness[source.row_of_scored] = np.where(np.isnan(trials.fitness), -np.inf, trials.fitness)
    of_parents = np.append(fitness[parents], -np.inf)
    best = np.maximum.reduceat(of_parents, starts[:-1])  # of an empty stretch: what follows it
    best[starts[1:] == starts[:-1]] = -np.inf
    mine = best[source.row_of_scored]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(mine) & (trials.fitness > mine), np.bool_)
