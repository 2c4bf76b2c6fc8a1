"""An index of all individuals and their parents, extended as a run commits more."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from evo.lineage.ancestry.graph import KEY_DIGITS, KeyIndex, ParentGraph, ParentKeys, Rows
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.committed_tables import CommittedTables

_PREFIX = re.compile(r"[0-9a-f]{1,64}")
TABLE = "individuals"
COLUMNS = ("id", "generation", "operator")  # kept in memory; the default columns of ancestors


class AncestryIndex:
    """All individuals of a lineage and their parents, in about 150 bytes for each individual.

    An individual is a row number: its row in the table ``individuals``, over all commits. ``index`` and
    ``graph`` exist after the first :meth:`update`.
    """

    index: KeyIndex
    graph: ParentGraph

    def __init__(self, committed: CommittedTables) -> None:
        self.committed = committed
        self._read = (-1, 0)  # resets of the committed tables, and number of commits read
        self._links: list[ParentKeys] = []
        self._kept = SCHEMAS[TABLE].empty_table().select(list(COLUMNS))

    def update(self) -> None:
        """Read the commits added since the last call.

        Raises:
            EvoError: a file is damaged, missing, or of another schema version.
        """
        commits, resets = len(self.committed.entries()), self.committed.resets
        if self._read == (resets, commits):
            return
        since = self._read[1] if self._read[0] == resets else 0
        new = self.committed.each(TABLE, [*COLUMNS, "parents"], _link, since)
        links = ParentKeys.joined([*(self._links if since else ()), *(found for found, _ in new)])
        rows = [kept for _, kept in new]
        self._kept = pa.concat_tables([self._kept.slice(0, None if since else 0), *rows])
        self.index = KeyIndex.of(links.keys)
        self.graph = links.graph(self.index)
        self._links, self._read = [links], (resets, commits)

    def beginning(self, prefix: str) -> Rows:
        """The rows of the individuals whose id begins with ``prefix``."""
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
