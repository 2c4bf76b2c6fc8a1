"""Per-example scores, read only from the files that have those that are asked for."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from evo.lineage.commits import FINAL, read_committed
from evo.lineage.reader import LINEAGE_FOLDER
from evo.lineage.schema import SCHEMAS
from evo.report.source import Source


def commit_of(source: Source, individual: str, split: str) -> str:
    """The name of the commit that has an individual's examples of a split."""
    at = source.trials.place.get(individual)
    if split != "dev" or at is None:
        return FINAL
    return f"{source.trials.generation[at]:06d}"


def items_of(source: Source, individuals: Collection[str], split: str) -> pa.Table:
    """Rows of ``items``: those of the individuals on one split, by commit.

    Raises:
        UserError: a file is damaged.
    """
    wanted = {commit_of(source, i, split) for i in individuals}
    names = pa.array(list(individuals), pa.string())
    parts = [SCHEMAS["items"].empty_table()]
    for entry in source.commits:
        if entry.name in wanted:
            rows = read_committed(source.run_dir / LINEAGE_FOLDER, entry, "items")
            mine = pc.and_(
                pc.equal(rows.column("split"), split),
                pc.is_in(rows.column("individual"), value_set=names),
            )
            parts.append(rows.filter(mine))
    return pa.concat_tables(parts)
