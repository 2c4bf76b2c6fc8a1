"""Files that are written whole or not at all."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
        with contextlib.suppress(OSError):
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


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or the same name with the first free number: runs/demo, runs/demo-2, ..."""
    number, folder = 2, wanted
    while folder.exists():
        folder = wanted.with_name(f"{wanted.name}-{number}")
        number += 1
    return folder
