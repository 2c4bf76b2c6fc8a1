"""What each operator's children came to."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evo.report.contract import OperatorFacts
from evo.report.source import Source

OPERATORS = 50


def operators(source: Source) -> list[OperatorFacts]:
    """A row for each operator as recorded, most children first. Founders are nobody's children."""
    trials, table = source.trials, source.individuals
    if not trials.ids:
        return []
    rows = pc.index_in(pa.array(trials.ids), value_set=table.column("id").combine_chunks())
    names = table.column("operator").take(rows).combine_chunks().dictionary_encode()
    code = names.indices.to_numpy(zero_copy_only=False)
    failed = np.isnan(trials.fitness)
    survived = _survived(source)
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
                "survival": lived / children,
                "improved": int(improved[mine].sum()),
                "best": float(trials.fitness[alive].max()) if alive.any() else None,
            }
        )
    return sorted(found, key=lambda r: (-r["children"], r["operator"]))[:OPERATORS]


def _survived(source: Source) -> np.ndarray:
    """Of each trial, whether it was in the population at the end of its own generation."""
    trials, population = source.trials, source.population
    rows = pc.index_in(
        population.column("individual").combine_chunks(), value_set=pa.array(trials.ids)
    )
    at = rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    number = population.column("generation").to_numpy()
    mine = at[(at >= 0) & (trials.generation[at] == number)]
    found = np.zeros(len(trials.ids), np.bool_)
    found[mine] = True
    return found


def _improved(source: Source) -> np.ndarray:
    """Of each trial, whether it is fitter than every one of its parents (as far as those were tried)."""
    trials = source.trials
    found = np.zeros(len(trials.ids), np.bool_)
    for at, name in enumerate(trials.ids):
        row = source.place.get(name)
        tried = [] if row is None else [trials.place.get(p) for p in source.parents[row]]
        parents = [trials.fitness[p] for p in tried if p is not None]
        found[at] = bool(parents) and bool(trials.fitness[at] > np.nanmax([*parents, -np.inf]))
    return found
