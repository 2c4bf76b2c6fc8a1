"""The search's curve: what was found by when."""

import numpy as np
import pyarrow as pa

from evo.lineage.graph import keys_of


def best_so_far(rows: pa.Table) -> pa.Table:
    """The curve of one split's evaluations (individual, generation, at_seconds, fitness), as recorded.

    Rows of one individual stand together, one for each task: the first of them counts.
    """
    keys = keys_of(rows.column("individual"))
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    if not first.all():
        rows = rows.filter(pa.array(first))
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
