"""Files and folders that are written whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evo.errors import EvoError


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` through a temporary file: after a crash the file has the old content or the new.

    Raises:
        OSError: the file could not be written; the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise named(error, path) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` as JSON, whole or not at all.

    Raises:
        OSError: the file could not be written.
        ValueError: ``data`` holds a number that is not finite.
    """
    write_whole(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def named(error: OSError, path: Path) -> OSError:
    """Return ``error`` with the name of its file, which errors of an open file lack."""
    return OSError(error.errno, error.strerror, str(path))


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out``; rename it to ``out`` after the block, or delete it on an error.

    Raises:
        EvoError: ``out`` exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EvoError(f"{out}: exists already; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield temporary
        _apply_umask(temporary)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _apply_umask(folder: Path) -> None:
    """Set the modes that the umask allows: temporary folders and safetensors files are private."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():  # aligned checkpoints link to files that are not ours
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or the same name with the first free number: runs/demo, runs/demo-2, ..."""
    number, folder = 2, wanted
    while folder.exists():
        folder = wanted.with_name(f"{wanted.name}-{number}")
        number += 1
    return folder
