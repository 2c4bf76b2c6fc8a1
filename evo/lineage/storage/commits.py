"""Commits: which files belong to a finished generation, and what was in them, to the last bit.

``lineage/commits/<name>.json`` is written last. Rows count once it is there; a file that is not what
it says is damage, and never a shorter lineage. It holds the SHA-256 of each file, and so that one column
can be trusted without reading the others, where each column's bytes stand and their CRC-32.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from evo.errors import EvoError
from evo.lineage.schema import SCHEMA_VERSION
from evo.lineage.versions import check_version
from evo.run_dir.files import write_whole

COMMITS = "commits"
FINAL = "final"
# Dictionaries cost time where every value is another one, as ids are.
_REPEATING = {
    "individuals": ["operator", "parents.list.element"],
    "evaluations": ["task", "split", "host", "status", "error"],
    "items": ["individual", "task", "split", "value", "answer"],
    "population": [],
    "events": ["kind"],
}
_CHECK = b',"check":"'


Spans: TypeAlias = Sequence[int]
"""Start, length and CRC-32 of some bytes of a file; of several spans one after the other."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Where a file's columns stand: ``columns`` are each leaf column's spans, one a row group."""

    size: int
    footer: Spans
    columns: Mapping[str, Spans]


def hold(data: memoryview, spans: Spans) -> bool:
    """Whether a file's bytes are those that were committed, as far as ``spans`` go."""
    starts, lengths, checks = spans[::3], spans[1::3], spans[2::3]
    each = zip(starts, lengths, checks, strict=True)
    return all(zlib.crc32(data[start : start + n]) == check for start, n, check in each)


@dataclass(frozen=True, slots=True)
class FileMark:
    """What a file must be: its SHA-256, and its marks, which lineages of schema 1 do not have."""

    digest: str
    marks: Marks | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its name (a generation's number, or ``final``) and the mark of each table's file."""

    name: str
    files: Mapping[str, FileMark]


def commit(folder: Path, name: str, tables: Mapping[str, pa.Table]) -> None:
    """Write the tables, then the commit that makes them count.

    Raises:
        OSError: something could not be written; then nothing of this commit counts.
    """
    digests, marks = {}, {}
    for table, rows in tables.items():
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd", use_dictionary=_REPEATING[table])
        data = sink.getvalue()
        digests[table] = hashlib.sha256(data).hexdigest()
        marks[table] = _marks(data)
        write_whole(folder / table / f"{name}.parquet", data)
    body = {"schema": SCHEMA_VERSION, "files": digests, "marks": marks}
    text = json.dumps(body, separators=(",", ":")).encode()[:-1]
    check = hashlib.sha256(text).hexdigest().encode()
    write_whole(folder / COMMITS / f"{name}.json", text + _CHECK + check + b'"}\n')


def _marks(data: bytes) -> dict[str, Any]:
    """The file's size, and (start, length, CRC-32) of the footer and of each column's chunks."""
    length = int.from_bytes(data[-8:-4], "little") + 8
    columns: dict[str, list[int]] = {}
    metadata = pq.read_metadata(pa.BufferReader(data))
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page:
                start = min(start, chunk.dictionary_page_offset)
            columns.setdefault(chunk.path_in_schema, []).extend(
                _span(data, start, chunk.total_compressed_size)
            )
    return {
        "size": len(data),
        "footer": _span(data, len(data) - length, length),
        "columns": columns,
    }


def _span(data: bytes, start: int, length: int) -> tuple[int, int, int]:
    return start, length, zlib.crc32(memoryview(data)[start : start + length])


def commits(folder: Path) -> list[Commit]:
    """All commits in order: generations by number, ``final`` last.

    Raises:
        EvoError: a commit's file is damaged or gone, or of a newer schema.
    """
    paths = commit_files(folder)
    check_numbers(paths)
    return [read_commit(path) for path in paths]


def check_numbers(paths: list[Path]) -> None:
    """Check that none is gone of the commits' files, which are given in order.

    Raises:
        EvoError: one is, and later ones are here.
    """
    numbered = [p for p in paths if p.stem != FINAL]
    for number, path in enumerate(numbered):
        if path.stem != f"{number:06d}":
            raise damaged(
                path.with_stem(f"{number:06d}"), "the file is gone, and later ones are here"
            )


def commit_files(folder: Path) -> list[Path]:
    """The files of all commits, in order."""
    return sorted((folder / COMMITS).glob("*.json"))


def read_commit(path: Path) -> Commit:
    """What one commit's file says.

    Raises:
        EvoError: it is damaged, or of a newer schema.
    """
    try:
        text = path.read_bytes()
        data: Any = json.loads(text)
        check_version(str(data.get("schema", "1")), path)
        if "marks" not in data:
            return _read_unmarked(path.stem, data)
        body, _, _ = text.rpartition(_CHECK)
        if data["check"] != hashlib.sha256(body).hexdigest():
            raise ValueError("its bytes are not those that were committed")
        files = {
            table: FileMark(digest, Marks(**data["marks"][table]))
            for table, digest in data["files"].items()
        }
    except EvoError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, str(error)) from error
    return Commit(path.stem, files)


def _read_unmarked(name: str, data: Mapping[str, Any]) -> Commit:
    digests = dict(data["files"])
    text = json.dumps(sorted(digests.items())).encode()
    if data["check"] != hashlib.sha256(text).hexdigest():
        raise ValueError("its bytes are not those that were committed")
    return Commit(name, {table: FileMark(digest) for table, digest in digests.items()})


def damaged(path: Path, why: str) -> EvoError:
    """The error for a file of the lineage that can't be trusted."""
    return EvoError(
        f"{path}: damaged ({why}). Restore the file, or let `evo resume --repair` set it and what came "
        "after it aside and evaluate that again"
    )
