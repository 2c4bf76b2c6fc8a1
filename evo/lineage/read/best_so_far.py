"""The search's curve: what was found by when."""

from typing import Final

import numpy as np
import pyarrow as pa

from evo.lineage.ancestry.graph import keys_of

STATIC: Final = "static:"
"""Operators that begin so made the merges that a winner is compared with, which no search made."""


def best_so_far(rows: pa.Table) -> pa.Table:
    """The curve of a search's evaluations (individual, generation, at_seconds, fitness), as recorded.

    An individual has a row for each task, one after the other; the first counts.
    """
    keys = keys_of(rows.column("individual"))
    again = keys[1:] == keys[:-1]
    if again.any():
        rows = rows.filter(pa.array(np.append(True, ~again)))
    fitness = rows.column("fitness").to_numpy()
    best = np.fmax.accumulate(fitness) if len(fitness) else fitness
    return pa.table(
        {
            "evaluation": np.arange(rows.num_rows),
            "generation": rows.column("generation"),
            "at_seconds": rows.column("at_seconds"),
            "individual": rows.column("individual"),
            "fitness": rows.column("fitness"),
            "best": pa.array(best, from_pandas=True),
        }
    )
