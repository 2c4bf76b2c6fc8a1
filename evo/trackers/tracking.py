"""Tracking: each generation goes to each callback once, over all sessions, and no callback can end the run.

``trackers.json`` has, for each callback, its id of the run and the last generation that it has logged. A resumed
run replays its generations; those that were logged are skipped.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from evo.errors import EvoError
from evo.files import write_whole
from evo.run_dir import RunDir
from evo.run_dir.summary import RunSummary
from evo.trackers.protocol import Callback, TrackedRun

if TYPE_CHECKING:
    from evo.search.progress import Generation


@dataclass(frozen=True, slots=True)
class Logged:
    """What one callback has logged: its last generation, or -1."""

    tracker_id: str = ""
    generation: int = -1
    evaluations: int = -1
    looks: int = 0  # ``looks_at_test`` of the last summary that it got


class Tracking:
    """The callbacks of one session of a run.

    Args:
        run_dir: where ``trackers.json`` is.
        named: the callbacks by name.
        own: further ones, named after their classes.
        note: records an event, by text and generation, when a callback is removed.
    """

    def __init__(
        self,
        run_dir: RunDir,
        named: Mapping[str, Callback],
        own: Sequence[Callback],
        note: Callable[[str, int], None],
    ) -> None:
        self._path = run_dir.trackers_path
        self._note = note
        self._callbacks = dict(named)
        for callback in own:
            name = free = type(callback).__name__
            number = 2
            while free in self._callbacks:
                free, number = f"{name}-{number}", number + 1
            self._callbacks[free] = callback
        self._logged: dict[str, Logged] = {}
        self._generation = 0

    def start(self, run: TrackedRun) -> None:
        """Start all callbacks.

        Raises:
            EvoError: one raised an exception; the others are closed again.
        """
        if not self._callbacks:
            return
        self._logged = self._read()
        for name, callback in self._callbacks.items():
            before = self._logged.get(name, Logged())
            session = replace(run, tracker_id=before.tracker_id, evaluations=before.evaluations)
            try:
                tracker_id = callback.start(session)
            # Other people's packages: they may raise anything.
            except Exception as error:
                self.close()
                raise EvoError(
                    f"trackers.{name}: could not start: {_line(error)}. Correct its settings, or remove it"
                ) from error
            if tracker_id != before.tracker_id:
                before = Logged(tracker_id)
            self._logged[name] = before
            self._write()

    def generation(self, generation: "Generation") -> None:
        """Pass a generation to the callbacks that have not logged it."""
        self._generation = generation.number
        for name, callback in tuple(self._callbacks.items()):
            logged = self._logged[name]
            # The last generation of an extended run may have been logged before it was whole.
            if (logged.generation, logged.evaluations) >= (
                generation.number,
                generation.evaluations,
            ):
                continue
            now = replace(logged, generation=generation.number, evaluations=generation.evaluations)
            self._guarded(name, partial(callback.generation, generation), now)

    def finish(self, summary: RunSummary) -> None:
        """Pass the summary to the callbacks that do not have it."""
        for name, callback in tuple(self._callbacks.items()):
            logged = self._logged[name]
            if logged.looks < summary.looks_at_test:
                now = replace(logged, looks=summary.looks_at_test)
                self._guarded(name, partial(callback.finish, summary), now)

    def close(self) -> None:
        """Close all callbacks. A second call does nothing."""
        callbacks, self._callbacks = self._callbacks, {}
        for name, callback in callbacks.items():
            try:
                callback.close()
            except Exception as error:
                _warn(f"{name}: could not be closed: {_line(error)}")

    def _guarded(self, name: str, call: Callable[[], None], now: Logged) -> None:
        try:
            call()
            self._logged[name] = now
            self._write()
        except Exception as error:
            callback = self._callbacks.pop(name)
            text = f"{name}: removed after an error: {_line(error)}"
            self._note(text, self._generation)
            _warn(text)
            try:
                callback.close()
            except Exception as again:
                _warn(f"{name}: could not be closed: {_line(again)}")

    def _read(self) -> dict[str, Logged]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {name: Logged(**entry) for name, entry in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise EvoError(
                f"{self._path}: damaged ({error}). If you delete the file, trackers begin new runs and "
                "log everything again"
            ) from error

    def _write(self) -> None:
        found = {name: asdict(logged) for name, logged in self._logged.items()}
        write_whole(self._path, (json.dumps(found, indent=1) + "\n").encode())


def _line(error: Exception) -> str:
    """The first line of its message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _warn(text: str) -> None:
    logging.getLogger("evo").warning("tracker %s", text)
