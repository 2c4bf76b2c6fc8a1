"""The lock of a run directory: one process at a time writes to a run."""

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

TRIES = 5


class RunLock:
    """The exclusive right to write to a run directory. It ends with its process.

    Raises:
        EvoError: another process holds the lock; the message names it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not self._acquire():
            os.close(self._file)
            self._file = -1
            process = lock_holder(path) or "another process"
            raise EvoError(
                f"{path.parent}: {process} is working on this run. Wait until it ends, or stop it"
            )
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(owner).encode(), 0)

    def _acquire(self) -> bool:
        for _ in range(TRIES):
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # False where a run that could not start has just deleted the file.
                return os.path.samestat(os.fstat(self._file), os.stat(self._path))
            sleep(0.02)  # `lock_holder` holds a shared lock for an instant
        return False

    def release(self) -> None:
        """Release the lock. Harmless the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Release the lock and delete its file, and the run directory if it is empty."""
        self._path.unlink(missing_ok=True)
        self.release()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()


def lock_holder(path: Path) -> str | None:
    """Return the process that holds a lock ("process 12 on host a since ..."); None if none does."""
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
