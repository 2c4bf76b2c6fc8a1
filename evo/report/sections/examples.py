"""Per-example scores, read only from the files that have those that are asked for."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from evo.lineage.read.comparison import Comparison, compared
from evo.lineage.schema import SCHEMAS
from evo.report.data.run_data import RunData
from fitness.splits import DEV

_KEYS = ["task", "split", "example"]


def commits_of(data: RunData, individual: str, split: str) -> list[str]:
    """The names of the commits that may have an individual's examples of a split."""
    at = data.dev_scores.place.get(individual)
    if split != DEV or at is None:
        return data.final_commits
    return data.commits_of(data.dev_scores.generation[at])


def items_of(data: RunData, individuals: Collection[str], split: str) -> pa.Table:
    """Rows of ``items``: those of the individuals on one split, in order of task and example.

    Raises:
        EvoError: a file is damaged.
    """
    names = pa.array(list(individuals), pa.string())
    parts = []
    for commit in sorted({c for i in individuals for c in commits_of(data, i, split)}):
        rows = data.rows_in(commit, "items", SCHEMAS["items"].names)
        mine = pc.is_in(rows.column("individual"), value_set=names)
        parts.append(rows.filter(pc.and_(mine, pc.equal(rows.column("split"), split))))
    empty = SCHEMAS["items"].empty_table()
    return pa.concat_tables(parts or [empty]).sort_by([(key, "ascending") for key in _KEYS])


def comparison(data: RunData, a: str, b: str, split: str) -> Comparison | None:
    """Two individuals on the same examples; None where their examples are not all there.

    Raises:
        EvoError: a file is damaged.
    """
    rows = items_of(data, {a, b}, split)
    first, second = (rows.filter(pc.equal(rows.column("individual"), i)) for i in (a, b))
    if not first.num_rows or not first.select(_KEYS).equals(second.select(_KEYS)):
        return None
    items = pa.table(
        {
            **{key: first.column(key) for key in _KEYS},
            "a": first.column("value"),
            "b": second.column("value"),
            "a_answer": first.column("answer"),
            "b_answer": second.column("answer"),
        }
    )
    return compared(a, b, split, items, data.shares)
