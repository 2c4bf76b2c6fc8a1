"""Tracking: each generation goes to each callback once, over all sittings, and none can end the run.

``trackers.json`` keeps, for every callback, what it calls the run and the last generation that it has
logged. A replay gives all generations again, and those are what is compared with it.
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
    """How far one callback has come; -1 where it has logged no generation."""

    known_as: str = ""
    generation: int = -1
    evaluations: int = -1
    looks: int = 0  # of the summaries that it was given, the last one's looks at test


class Tracking:
    """The callbacks of one sitting of a run.

    Args:
        run_dir: where ``trackers.json`` is.
        named: the callbacks by name.
        own: more of them, which go by their class.
        note: takes an event's text and generation, when a callback is left off.
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
            EvoError: one of them can't be; the others are closed again.
        """
        if not self._callbacks:
            return
        self._logged = self._read()
        for name, callback in self._callbacks.items():
            before = self._logged.get(name, Logged())
            told = replace(run, known_as=before.known_as, evaluations=before.evaluations)
            try:
                known_as = callback.start(told)
            # Other people's packages: they may raise anything.
            except Exception as error:
                self.close()
                raise EvoError(
                    f"trackers.{name}: could not start: {_line(error)}. Set it right, or leave it out"
                ) from error
            if known_as != before.known_as:
                before = Logged(known_as)
            self._logged[name] = before
            self._write()

    def generation(self, generation: "Generation") -> None:
        """Give a generation to those that have not logged it."""
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
        """Give the outcome to those that do not have it."""
        for name, callback in tuple(self._callbacks.items()):
            logged = self._logged[name]
            if logged.looks < summary.looks_at_test:
                now = replace(logged, looks=summary.looks_at_test)
                self._guarded(name, partial(callback.finish, summary), now)

    def close(self) -> None:
        """Close all callbacks. Harmless the second time."""
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
            text = f"{name}: left off, it failed: {_line(error)}"
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
                f"{self._path}: damaged ({error}). Without the file, trackers begin new runs and are told "
                "everything again"
            ) from error

    def _write(self) -> None:
        found = {name: asdict(logged) for name, logged in self._logged.items()}
        write_whole(self._path, (json.dumps(found, indent=1) + "\n").encode())


def _line(error: Exception) -> str:
    """The first line of what it says, with its type where that is all it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _warn(text: str) -> None:
    logging.getLogger("evo").warning("tracker %s", text)
