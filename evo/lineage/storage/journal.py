"""The journal: every finished job is written when it ends, and kept until the next commit.

``lineage/journal.arrows`` is an Arrow IPC stream with one record batch for each job, appended in one
write: a killed process loses unfinished jobs only. An incomplete last record is the trace of a kill and is
dropped; anything else that cannot be read is damage and is refused.
"""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.jobs import JobResult
from evo.errors import EvoError
from evo.files import named, write_whole
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.records import (
    Items,
    Record,
    evaluation_rows,
    kind_text,
    query_from,
    record_from,
)

# Without the columns' docs: a journal stays readable when a description changes.
_TAKEN = [
    field.remove_metadata()
    for field in SCHEMAS["evaluations"]
    if field.name not in ("generation", "fitness")
]
SCHEMA = pa.schema(
    [
        *_TAKEN,
        pa.field("kind", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.float64()), nullable=False),
        pa.field("answers", pa.list_(pa.string()), nullable=False),
        pa.field("numbers", pa.bool_(), nullable=False),  # whether the answers are whole numbers
        pa.field("check", pa.uint32(), nullable=False),  # CRC-32 of all the rest
    ],
    metadata=SCHEMAS["evaluations"].metadata,
)
_ROW = pa.struct(list(SCHEMA))
_PLAIN = [f.name for f in SCHEMA if f.name not in ("values", "check")]
_START = SCHEMA.serialize().to_pybytes()
_MARK = b"\xff\xff\xff\xff"  # the first bytes of every message of an IPC stream


class Journal:
    """An open journal. The run's lock ensures that one process writes at a time.

    ``keep`` is the number of bytes to keep of the file; by default it is emptied.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self._file = -1
        if not keep:
            self.reset()
            return
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.ftruncate(self._file, keep)

    def append(self, result: JobResult) -> None:
        """Write one job's result. Once this returns, a killed process does not lose it.

        Raises:
            OSError: it could not be written, as on a full disk. Earlier records stay.
        """
        view = memoryview(_encode(result))
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise named(error, self.path) from error

    def reset(self) -> None:
        """Empty the journal; the caller has committed its records."""
        self.close()
        write_whole(self.path, _START)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class JournalContents:
    """The records of a journal in the order written, their size in bytes, and the bytes of a torn last record."""

    records: tuple[Record, ...] = ()
    size: int = 0
    torn: int = 0


def read_journal(path: Path) -> JournalContents:
    """Read a journal; another process may be writing it.

    Raises:
        EvoError: its bytes were changed after they were written, or another schema wrote it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return JournalContents()
    start = len(_START)
    if not data.startswith(_START):
        if _START.startswith(data):  # killed in its first write
            return JournalContents(torn=len(data))
        raise _damaged(path, 0, 0)
    records: list[Record] = []
    at = start
    while at < len(data):
        found = _decode(data, at)
        if found is None:
            if any(_decode(data, later) for later in _marks(data, at + 1)):
                raise _damaged(path, at, len(records))
            break
        record, at = found
        records.append(record)
    return JournalContents(tuple(records), at, len(data) - at)


def _damaged(path: Path, at: int, good: int) -> EvoError:
    return EvoError(
        f"{path}: damaged at byte {at}; the {good} evaluations before it are intact. Restore the file, or run "
        "`evo resume --repair`, which moves it to RUN_DIR/damaged and evaluates again what it held"
    )


def _marks(data: bytes, start: int) -> Iterator[int]:
    at = data.find(_MARK, start)
    while at >= 0:
        yield at
        at = data.find(_MARK, at + 1)


def _encode(result: JobResult) -> bytes:
    scored = {r.query: r for r in result.results}
    rows = evaluation_rows(result)
    for query, row in zip(result.job.queries, rows, strict=True):
        found = scored.get(query)
        answers = found.answers if found else ()
        row["kind"] = kind_text(query)
        row["values"] = np.asarray(found.values if found else (), dtype=np.float64)
        row["answers"] = [None if a is None else str(a) for a in answers]
        row["numbers"] = any(issubclass(kind, int) for kind in set(map(type, answers)))
        row["check"] = _check(row)
    batch = pa.RecordBatch.from_struct_array(pa.array(rows, _ROW))
    data: bytes = batch.serialize().to_pybytes()
    return data


def _decode(data: bytes, at: int) -> tuple[Record, int] | None:
    """The record that begins at byte ``at``, and where it ends; None if it is not intact."""
    source = pa.BufferReader(pa.py_buffer(data)[at:])
    try:
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(source), SCHEMA)
        batch.validate(full=True)
        rows = batch.to_pylist()
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError):
        return None
    if not rows or any(row["check"] != _check(row) for row in rows):
        return None
    items = [
        Items(
            tuple(r["values"]),
            tuple(int(a) if r["numbers"] and a is not None else a for a in r["answers"]),
        )
        for r in rows
    ]
    queries = [query_from(r["task"], r["split"], r["kind"]) for r in rows]
    return record_from(rows, queries, items), at + source.tell()


def _check(row: dict[str, Any]) -> int:
    plain = [row[name] for name in _PLAIN]
    floats = np.asarray(row["values"], dtype=np.float64).tobytes()
    return zlib.crc32(floats, zlib.crc32(repr(plain).encode()))
