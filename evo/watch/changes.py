"""Detect changes in a run directory from the times and sizes of its files."""

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from evo.errors import EvoError
from evo.run_dir import RunDir

LOOK_S = 0.25  # least time between two checks of the files
REST = 4.0  # pause after a reading, as a multiple of its time: at most a fifth of one core is used


def check_watchable(run_dir: Path) -> None:
    """Check that a directory holds a run, or one that is starting.

    Raises:
        EvoError: it does not.
    """
    folder = RunDir(run_dir)
    if not folder.has_run and folder.holder() is None:
        runs = sorted(p.parent.name for p in run_dir.glob(f"*/{folder.lineage.name}"))
        hint = (
            f". Its subdirectories hold runs; name one, such as {run_dir / runs[0]}" if runs else ""
        )
        raise EvoError(f"{run_dir}: no run here (it has no {folder.config_path.name}){hint}")


class ChangeDetector:
    """Compares the files of a run, and the process that works on it, with the check before.

    ``rewritten`` says whether a committed file changed or disappeared since then, so that what was kept of
    it in memory is out of date.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._holder: str | None = None
        self._files: dict[str, tuple[int, int]] | None = None
        self._next = 0.0
        self.rewritten = False

    def due(self) -> bool:
        """Whether something changed and the last reading was long enough ago."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + LOOK_S
        before, who = self._files, self._holder
        run = RunDir(self._run_dir)
        self._files = dict(map(_times, (run.config_path, run.manifest_path, run.summary_path)))
        self._files |= dict(_all(run.lineage))
        self._holder = RunDir(self._run_dir).holder()
        if before is None:
            return True
        final = {p: t for p, t in before.items() if p.endswith((".parquet", ".json"))}
        self.rewritten = any(t[1] and self._files.get(p) != t for p, t in final.items())
        return (before, who) != (self._files, self._holder)

    def rest(self, took_s: float) -> None:
        """Set the pause after a reading that took ``took_s`` seconds."""
        self._next = monotonic() + max(LOOK_S, REST * took_s)


def _times(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        found = path.stat()
    except OSError:
        return str(path), (0, 0)
    return str(path), (found.st_mtime_ns, found.st_size)


def _all(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _all(Path(entry.path))
                elif entry.name.endswith((".arrows", ".parquet", ".json")):
                    yield _times(Path(entry.path))
    except OSError:  # not created yet, or just moved by a repair
        return
