"""Reading committed tables by column: only the requested columns are read, and every byte read is checked."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from evo.lineage.schema import SCHEMAS, check_version
from evo.lineage.storage.commits import (
    COMMITS,
    Commit,
    check_numbers,
    damaged,
    matches,
    read_commit,
)

_GROUPS_PER_THREAD = 4
_SMALLEST_GROUP = 8  # commits; for fewer, starting a thread costs more than it saves

_BATCH_ROWS = 4096
_MAGIC = b"PAR1"

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def read_committed(
    folder: Path, entry: Commit, table: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """One table's rows of one commit; ``columns`` are those to read and check, by default all.

    Raises:
        EvoError: the file is missing, damaged, or of another schema version.
    """
    schema = SCHEMAS[table]
    wanted = schema.names if columns is None else list(columns)
    if table not in entry.files:
        return schema.empty_table().select(wanted)
    path = folder / table / f"{entry.name}.parquet"
    checks = entry.files[table]
    try:
        # A memory map: pages of columns that are not read stay on disk.
        with pa.memory_map(str(path)) as file:
            buffer = file.read_buffer()
        data = memoryview(buffer)
        intact = len(data) == checks.size and data[:4] == _MAGIC and matches(data, checks.footer)
        intact = intact and all(
            matches(data, spans)
            for leaf, spans in checks.columns.items()
            if leaf.split(".", 1)[0] in wanted
        )
        if not intact:
            raise damaged(path, "its bytes have changed since they were committed")
        opened = pq.ParquetFile(pa.BufferReader(buffer))
        check_version((opened.metadata.metadata or {}).get(b"evo.schema", b"").decode(), path)
        return opened.read(wanted, use_threads=False).select(wanted)
    except FileNotFoundError as error:
        raise damaged(path, "the file is gone") from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, str(error)) from error


class CommittedTables:
    """The tables of all commits of one lineage, by column. A column that was read is kept in memory.

    Takes no locks and writes nothing, so a run may continue meanwhile; only committed rows are read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: list[tuple[str, int, int]] = []  # name, inode, time of change of each commit
        self._entries: list[Commit] = []
        self._kept: dict[tuple[str, str], tuple[int, pa.ChunkedArray]] = {}
        self._lengths: dict[str, dict[str, int]] = {name: {} for name in SCHEMAS}
        self.resets = 0  # how often known commits were replaced or removed, as by a repair

    def entries(self) -> Sequence[Commit]:
        """All commits so far, in order.

        Raises:
            EvoError: a commit's file is damaged, missing, or of another schema version.
        """
        found = _listed(self._folder / COMMITS)
        known = len(self._seen)
        if found[:known] != self._seen:  # a repair has moved some
            known = 0
            self.resets += 1
            self._kept.clear()
            self._lengths = {name: {} for name in SCHEMAS}
        paths = [self._folder / COMMITS / f"{name}.json" for name, _, _ in found]
        check_numbers(paths)
        fresh = _in_threads(lambda some: [read_commit(p) for p in some], paths[known:])
        self._entries = [*self._entries[:known], *chain.from_iterable(fresh)]
        self._seen = found
        return self._entries

    def read(self, table: str, columns: Sequence[str]) -> pa.Table:
        """These columns of a table, in order of commit.

        Raises:
            EvoError: a file is damaged, missing, or of another schema version.
        """
        entries = self.entries()
        behind: dict[int, list[str]] = {}
        for column in dict.fromkeys(columns):
            done = self._kept.get((table, column), (0, None))[0]
            if done < len(entries) or (table, column) not in self._kept:
                behind.setdefault(done, []).append(column)
        for done, late in behind.items():
            for column, new in zip(
                late, self._rows(table, late, entries[done:]).columns, strict=True
            ):
                before = self._kept[table, column][1].chunks if done else []
                chunks = pa.chunked_array([*before, *new.chunks], new.type)
                self._kept[table, column] = (len(entries), chunks)
        schema = SCHEMAS[table]
        fields = pa.schema([schema.field(c) for c in columns], schema.metadata)
        return pa.table([self._kept[table, c][1] for c in columns], schema=fields)

    def each(
        self, table: str, columns: Sequence[str], work: Callable[[pa.Table], _Out], since: int = 0
    ) -> list[_Out]:
        """The results of ``work`` on these columns, called with some thousand rows at a time; in order, not kept.

        ``since`` is the number of commits to skip. ``work`` runs in threads.

        Raises:
            EvoError: as `read`.
        """

        def some(group: Sequence[Commit]) -> list[_Out]:
            return [work(rows) for rows in self._batches(table, columns, group)]

        return list(chain.from_iterable(_in_threads(some, self.entries()[since:])))

    def finals(self, table: str) -> int:
        """The number of a table's rows in the final commits, which hold what was evaluated after the search.

        These are the table's last rows.
        """
        lengths = self._lengths[table].items()
        return sum(length for name, length in lengths if not name.isdigit())

    def take(self, table: str, columns: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
        """Some rows of a table; reads only the commits that hold them.

        ``rows`` are numbered over all commits that were read so far of this table, ascending.

        Raises:
            EvoError: as `read`.
        """
        lengths = np.array([self._lengths[table][e.name] for e in self._entries], np.int64)
        ends = np.cumsum(lengths)
        holder = np.searchsorted(ends, rows, side="right")
        held = np.unique(holder)
        # The same rows, numbered over the commits that are read.
        stops = np.cumsum(lengths[held])
        shift = (stops - ends[held])[np.searchsorted(held, holder)]
        wanted = rows + shift

        def some(group: Sequence[int]) -> pa.Table:
            at = int(stops[group[0]] - lengths[held[group[0]]])
            taken = []
            entries = [self._entries[held[i]] for i in group]
            for found in self._batches(table, columns, entries):
                here = slice(*np.searchsorted(wanted, (at, at + found.num_rows)))
                taken.append(found.take(pa.array(wanted[here] - at)))
                at += found.num_rows
            return pa.concat_tables(taken)

        return self._concat(table, columns, _in_threads(some, range(len(held))))

    def _rows(self, table: str, columns: Sequence[str], entries: Sequence[Commit]) -> pa.Table:
        def some(group: Sequence[Commit]) -> pa.Table:
            return pa.concat_tables(list(self._batches(table, columns, group))).combine_chunks()

        return self._concat(table, columns, _in_threads(some, entries))

    def _batches(
        self, table: str, columns: Sequence[str], entries: Sequence[Commit]
    ) -> Iterator[pa.Table]:
        """The rows of these commits, in batches that fit the processor's cache."""
        parts: list[pa.Table] = []
        for entry in entries:
            parts.append(read_committed(self._folder, entry, table, columns))
            self._lengths[table][entry.name] = parts[-1].num_rows
            if sum(p.num_rows for p in parts) >= _BATCH_ROWS or entry is entries[-1]:
                yield pa.concat_tables(parts).combine_chunks()
                parts = []

    def _concat(self, table: str, columns: Sequence[str], parts: Sequence[pa.Table]) -> pa.Table:
        return pa.concat_tables(parts or [SCHEMAS[table].empty_table().select(columns)])


def _listed(folder: Path) -> list[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as found:
            files = [(e.name, e.stat()) for e in found if e.name.endswith(".json")]
    except FileNotFoundError:  # nothing is committed yet
        return []
    return sorted((name.removesuffix(".json"), s.st_ino, s.st_mtime_ns) for name, s in files)


def _in_threads(work: Callable[[Sequence[_In]], _Out], items: Sequence[_In]) -> list[_Out]:
    """``work`` on successive groups of ``items``, in order."""
    threads = os.cpu_count() or 1
    size = max(_SMALLEST_GROUP, -(-len(items) // (threads * _GROUPS_PER_THREAD)))
    groups = [items[i : i + size] for i in range(0, len(items), size)]
    if len(groups) <= 1:
        return [work(group) for group in groups]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, groups))
