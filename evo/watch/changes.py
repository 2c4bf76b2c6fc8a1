"""Whether anything has happened in a run's folder, without reading what."""

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from evo.errors import UserError
from evo.lineage.files import holder
from evo.lineage.reader import LINEAGE_FOLDER

SMALL_FILES = ("config.json", "start.json", "summary.json")
LOOK_S = 0.25  # files are looked at no more often
REST = 4.0  # times as long as reading took is rested after it: so it takes a fifth of one core at most


def stamp(run_dir: Path) -> int:
    """A number that differs when a file of the run has changed, or when who is at work on it has."""
    found = [(name, *_times(run_dir / name)) for name in SMALL_FILES]
    return hash((holder(run_dir), *found, *sorted(_files(run_dir / LINEAGE_FOLDER))))


def check_watchable(run_dir: Path) -> None:
    """Refuse a folder in which there is no run and none is beginning.

    Raises:
        UserError: that is so.
    """
    if not ((run_dir / LINEAGE_FOLDER).exists() or (run_dir / SMALL_FILES[0]).exists()):
        if holder(run_dir) is None:
            raise UserError(f"{run_dir}: no run here (it has no {SMALL_FILES[0]})")


class Pace:
    """When to read a run again: after a change, and not at once after a reading that took long."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stamp: int | None = None
        self._next = 0.0

    def due(self) -> bool:
        """Whether there is something new to be read, and time to do it."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + LOOK_S
        before, self._stamp = self._stamp, stamp(self._run_dir)
        return before != self._stamp

    def rest(self, took_s: float) -> None:
        """A reading has ended."""
        self._next = monotonic() + max(LOOK_S, REST * took_s)


def _times(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _files(Path(entry.path))
                elif not entry.name.endswith(".tmp"):
                    yield entry.path, *_times(Path(entry.path))
    except OSError:  # not there yet, or just set aside
        return
