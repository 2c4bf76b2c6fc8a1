"""Files of a run: written whole or not at all, and never by two processes."""

import contextlib
import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

from evo.errors import EvoError

LOCK_FILE = "lock"
TRIES = 5


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` by way of a temporary file: after a crash, the old content or the new.

    Raises:
        OSError: it could not be written; what was there before stays.
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


def named(error: OSError, path: Path) -> OSError:
    """``error`` with the name of the file that it is about: writing to an open file has none."""
    return OSError(error.errno, error.strerror, str(path))


class RunLock:
    """The right to write to a run's folder. It ends with its process, however that ends.

    Raises:
        EvoError: another process has it; the message says which.
    """

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / LOCK_FILE
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not self._taken():
            os.close(self._file)
            self._file = -1
            who = holder(run_dir) or "another process"
            raise EvoError(f"{run_dir}: {who} is at work on this run. Wait for it, or stop it")
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(mine).encode(), 0)

    def _taken(self) -> bool:
        for _ in range(TRIES):
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Not where a run that did not get to begin has just discarded the file.
                return os.path.samestat(os.fstat(self._file), os.stat(self._path))
            sleep(0.02)  # who only asks for the holder holds it for a moment
        return False

    def release(self) -> None:
        """Give the right up. Harmless the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Release, and leave no trace: for a run that did not get to begin."""
        self._path.unlink(missing_ok=True)
        self.release()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()  # only if it is empty


def holder(run_dir: Path) -> str | None:
    """Who is at work on a run ("process 12 on host a since ..."); None if nobody is."""
    path = run_dir / LOCK_FILE
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return f"process {found['pid']} on {found['host']} (since {found['since']})"
        except (OSError, ValueError, KeyError):
            return "another process"
    finally:
        os.close(file)
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def free_folder(wanted: Path) -> Path:
    """``wanted``, or with the first number that makes it new: runs/demo, runs/demo-2, ..."""
    number, folder = 2, wanted
    while folder.exists():
        folder = wanted.with_name(f"{wanted.name}-{number}")
        number += 1
    return folder
