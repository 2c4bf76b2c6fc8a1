"""Older schemas: what each lacks, and how a file of one is read as today's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from evo.errors import EvoError
from evo.lineage.schema import SCHEMA_VERSION, SCHEMAS


@dataclass(frozen=True, slots=True)
class Missing:
    """A column that an older schema lacks: made of other columns of the same file, or null."""

    sources: tuple[str, ...] = ()
    make: Callable[[pa.Table], pa.Array | pa.ChunkedArray] | None = None


def _score_of_one_task(rows: pa.Table) -> pa.Array | pa.ChunkedArray:
    if pc.count_distinct(rows.column("task")).as_py() == 1:
        return rows.column("score")
    return pa.nulls(rows.num_rows, pa.float64())


MISSING: Final[Mapping[str, Mapping[str, Mapping[str, Missing]]]] = MappingProxyType(
    {
        "1": {
            "evaluations": {
                "fitness": Missing(("task", "score"), _score_of_one_task),
                "tokens": Missing(),
                "weights": Missing(),
            }
        }
    }
)
"""By schema version and table: the columns that are not in its files."""


def check_version(version: str, path: Path) -> None:
    """Check that files of a schema can be read.

    Raises:
        EvoError: the schema is newer than this package, or no schema at all.
    """
    if version == SCHEMA_VERSION or version in MISSING:
        return
    raise EvoError(
        f"{path}: written with schema {version} of the lineage; this evo-models reads schemas "
        f"{', '.join([*MISSING, SCHEMA_VERSION])}. Upgrade evo-models: pip install --upgrade evo-models"
    )


def stored_columns(version: str, table: str, columns: Sequence[str]) -> list[str]:
    """Which columns of a file of ``version`` it takes to give ``columns`` of today's schema."""
    lacking = MISSING.get(version, {}).get(table, {})
    wanted = dict.fromkeys(c for c in columns if c not in lacking)
    for column in columns:
        if column in lacking:
            wanted |= dict.fromkeys(lacking[column].sources)
    return list(wanted)


def upgrade(version: str, table: str, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """``rows`` of a file of ``version`` as ``columns`` of today's schema; at least `stored_columns`."""
    lacking = MISSING.get(version, {}).get(table, {})
    if not lacking and rows.column_names == list(columns):
        return rows
    schema = pa.schema([SCHEMAS[table].field(c) for c in columns], SCHEMAS[table].metadata)
    made = []
    for field in schema:
        if field.name not in lacking:
            made.append(rows.column(field.name))
        elif (make := lacking[field.name].make) is not None:
            made.append(make(rows))
        else:
            made.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(made, schema=schema)
