"""The family of a lineage: every individual with its parents, held as numbers and read on as a run goes on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from evo.lineage.ancestry.graph import KEY_DIGITS, KeyIndex, ParentGraph, ParentKeys, Rows, keys_of
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.committed_tables import CommittedTables

_PREFIX = re.compile(r"[0-9a-f]{1,64}")
TABLE = "individuals"
COLUMNS = (
    "id",
    "generation",
    "operator",
)  # what people see of a family at first; kept as it is read


@dataclass(slots=True)
class AncestryIndex:
    """Who is in a lineage and who their parents are; 150 bytes an individual, or so.

    Everybody is a row: the row of ``individuals``, over all commits.
    """

    committed: CommittedTables
    _read: tuple[int, int] = (0, 0)  # resets of what is committed, and commits read
    _links: list[ParentKeys] = field(default_factory=list)
    _kept: pa.Table = field(
        default_factory=lambda: SCHEMAS[TABLE].empty_table().select(list(COLUMNS))
    )
    index: KeyIndex = field(
        default_factory=lambda: KeyIndex.of(keys_of(pa.chunked_array([], pa.string())))
    )
    graph: ParentGraph = field(
        default_factory=lambda: ParentGraph(np.zeros(1, np.int64), np.empty(0, np.int64))
    )

    def update(self) -> None:
        """Read what was committed since.

        Raises:
            EvoError: a file is damaged, gone, or of a newer schema.
        """
        commits, resets = len(self.committed.entries()), self.committed.resets
        if self._read == (resets, commits):
            return
        since = self._read[1] if self._read[0] == resets else 0
        news = self.committed.each(TABLE, [*COLUMNS, "parents"], _link, since)
        links = ParentKeys.joined([*(self._links if since else ()), *(found for found, _ in news)])
        rows = [kept for _, kept in news]
        self._kept = pa.concat_tables([self._kept.slice(0, None if since else 0), *rows])
        self.index = KeyIndex.of(links.keys)
        self.graph = links.graph(self.index)
        self._links, self._read = [links], (resets, commits)

    def beginning(self, prefix: str) -> Rows:
        """The rows of those whose id begins so."""
        if not _PREFIX.fullmatch(prefix):
            return np.empty(0, np.int64)
        rows = self.index.beginning(prefix)
        if len(prefix) > KEY_DIGITS and len(rows):
            ids = self.take(rows, ["id"]).column("id").to_pylist()
            rows = rows[[i.startswith(prefix) for i in ids]]
        return rows

    def take(self, rows: Rows, columns: Sequence[str]) -> pa.Table:
        """Rows of ``individuals``, in the order given."""
        if set(columns) <= set(COLUMNS):
            return self._kept.select(list(columns)).take(pa.array(rows))
        order = np.argsort(rows)
        found = self.committed.take(TABLE, columns, rows[order])
        if (rows[order] == rows).all():
            return found
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return found.combine_chunks().take(pa.array(back))


def _link(rows: pa.Table) -> tuple[ParentKeys, pa.Table]:
    return ParentKeys.of(rows), rows.select(list(COLUMNS))
