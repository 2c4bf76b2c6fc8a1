"""Commits: which files belong to a finished generation, and what was in them, to the last bit.

``lineage/commits/<name>.json`` is written last. Rows count once it is there; a file that is not what
it says is damage, and never a shorter lineage.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evo.errors import UserError
from evo.lineage.files import write_whole
from evo.lineage.schema import SCHEMAS

COMMITS = "commits"
FINAL = "final"


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its name (a generation's number, or ``final``) and each file's SHA-256 by table."""

    name: str
    digests: Mapping[str, str]


def commit(folder: Path, name: str, tables: Mapping[str, pa.Table]) -> None:
    """Write the tables, then the commit that makes them count.

    Raises:
        OSError: something could not be written; then nothing of this commit counts.
    """
    digests = {}
    for table, rows in tables.items():
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd")
        data = sink.getvalue()
        digests[table] = hashlib.sha256(data).hexdigest()
        write_whole(folder / table / f"{name}.parquet", data)
    text = json.dumps({"files": digests, "check": _check(digests)}, indent=1) + "\n"
    write_whole(folder / COMMITS / f"{name}.json", text.encode())


def commits(folder: Path) -> list[Commit]:
    """All commits in order: generations by number, ``final`` last.

    Raises:
        UserError: a commit's file is damaged or gone.
    """
    paths = commit_files(folder)
    numbered = [p for p in paths if p.stem != FINAL]
    for number, path in enumerate(numbered):
        if path.stem != f"{number:06d}":
            raise damaged(
                path.with_stem(f"{number:06d}"), "the file is gone, and later ones are here"
            )
    return [read_commit(path) for path in paths]


def commit_files(folder: Path) -> list[Path]:
    """The files of all commits, in order."""
    return sorted((folder / COMMITS).glob("*.json"))


def read_commit(path: Path) -> Commit:
    """What one commit's file says.

    Raises:
        UserError: it is damaged.
    """
    try:
        data: Any = json.loads(path.read_bytes())
        digests = dict(data["files"])
        if data["check"] != _check(digests):
            raise ValueError("its bytes are not those that were committed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, str(error)) from error
    return Commit(path.stem, digests)


def read_committed(folder: Path, entry: Commit, table: str) -> pa.Table:
    """One table's rows of one commit.

    Raises:
        UserError: the file is gone, or is not the one that was committed.
    """
    if table not in entry.digests:
        return SCHEMAS[table].empty_table()
    path = folder / table / f"{entry.name}.parquet"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path, "the file is gone") from error
    if hashlib.sha256(data).hexdigest() != entry.digests[table]:
        raise damaged(path, "its bytes are not those that were committed")
    return pq.ParquetFile(pa.BufferReader(data)).read()  # read_table takes three times as long


def _check(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def damaged(path: Path, why: str) -> UserError:
    """The error for a file of the lineage that can't be trusted."""
    return UserError(
        f"{path}: damaged ({why}). Restore the file, or let `evo resume --repair` set it and what came "
        "after it aside and evaluate that again"
    )
