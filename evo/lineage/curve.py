"""The search's curve: what was found by when."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evo.lineage.graph import keys_of

STATIC: Final = "static:"
"""Operators that begin so made the merges that a winner is compared with, which no search made."""


def best_so_far(rows: pa.Table, static: pa.ChunkedArray) -> pa.Table:
    """The curve of one split's evaluations (individual, generation, at_seconds, fitness), as recorded.

    ``static`` are the ids of merges that are no part of it. The first row of each individual counts:
    there is one for each task, and more where a search had tried what it was compared with later.
    """
    rows = rows.filter(pc.invert(pc.is_in(rows.column("individual"), value_set=static)))
    _, first = np.unique(keys_of(rows.column("individual")), return_index=True)
    if len(first) < rows.num_rows:
        rows = rows.take(pa.array(np.sort(first)))
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
