"""The journal: every finished job, written the moment it ends, until a commit takes it over.

``lineage/journal.arrows`` is an Arrow IPC stream, one record batch for each job, appended in one
write: a killed process loses what was not finished and nothing else. A last record that is torn is
what a kill leaves and is dropped; anything else that can't be read is damage, and is refused.
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
from evo.lineage.schema import SCHEMA_VERSION, SCHEMAS
from evo.lineage.storage.records import (
    Items,
    Record,
    evaluation_rows,
    kind_text,
    query_from,
    record_from,
)
from evo.lineage.versions import MISSING
from evo.run_dir.files import named, write_whole

_TAKEN = [f for f in SCHEMAS["evaluations"] if f.name not in ("generation", "fitness")]
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
_MARK = b"\xff\xff\xff\xff"  # every message of an IPC stream begins with it


class Journal:
    """An open journal. One process at a time: the run's lock sees to that.

    ``keep`` is how many bytes of the file there are to go on from; by default it begins anew.
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
        """Write one job's end; when this returns, a killed process has lost nothing.

        Raises:
            OSError: it could not be written, as on a full disk. What was written before stays.
        """
        view = memoryview(_encode(result))
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise named(error, self.path) from error

    def reset(self) -> None:
        """Begin anew: a commit has taken everything over."""
        self.close()
        write_whole(self.path, _START)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Let go of the file. Harmless the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class JournalContents:
    """What a journal held: its records in the order written, in how many bytes, and how many follow
    that are no whole record.
    """

    records: tuple[Record, ...] = ()
    size: int = 0
    torn: int = 0


def read_journal(path: Path) -> JournalContents:
    """Read a journal, also one that is being written.

    Raises:
        EvoError: it is damaged: bytes were changed after they were written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return JournalContents()
    start = len(_START)
    if not data.startswith(_START):
        if _START.startswith(data):  # killed in its first write
            return JournalContents(torn=len(data))
        older, same, start = _head(data)
        if older in MISSING and start == len(data):
            return JournalContents()
        if older in MISSING:
            raise EvoError(
                f"{path}: written with schema {older} of the lineage, which this evo-models reads but does "
                "not go on with. Resume with the version of evo-models in the run's manifest.json; "
                "`evo lineage` and `evo export` read what it has committed"
            )
        if not same:
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


def _head(data: bytes) -> tuple[str, bool, int]:
    """The schema's version that a journal begins with ("" where that can't be read), whether its columns
    are today's, whatever is said about them, and where its records begin.
    """
    source = pa.BufferReader(data)
    try:
        found = pa.ipc.read_schema(source)
    except (pa.ArrowException, OSError, EOFError):
        return "", False, 0
    version = (found.metadata or {}).get(b"evo.schema", b"").decode(errors="replace")
    return version, version == SCHEMA_VERSION and found.equals(SCHEMA), source.tell()


def _damaged(path: Path, at: int, good: int) -> EvoError:
    return EvoError(
        f"{path}: damaged at byte {at}; the {good} evaluations before it are whole. Restore the file, or "
        "let `evo resume --repair` set it aside and evaluate again what it held"
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
    """The record that begins at byte ``at`` and where it ends; None if none is whole there."""
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
