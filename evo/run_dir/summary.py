"""The summary of a finished run, ``summary.json``: winner, baselines, times."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from evo.errors import EvoError
from evo.files import write_json


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The mean score of one task on test, and its standard error."""

    test: float
    test_se: float


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One row of the table of results: the winner, an ensemble or a baseline.

    Attributes:
        id: of the individual; None for an ensemble.
        dev, select, test: fitness on each split; None where the tasks lack it, or the individual failed.
        test_se: standard error of ``test``.
        tasks: scores on test by task.
        evaluations: dev evaluations spent to find it, where it was searched for.
    """

    name: str
    kind: str
    id: str | None
    dev: float | None
    select: float | None
    test: float | None
    test_se: float | None
    tasks: Mapping[str, TaskScore]
    evaluations: int | None = None


@dataclass(frozen=True, slots=True)
class TimeUse:
    """Where a run's time went. Shares are of the hosts' time in the search: hosts x seconds."""

    startup_s: float
    search_s: float
    final_s: float
    evaluations_per_second: float
    build_share: float
    model_share: float
    score_share: float
    other_share: float


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Peak resident memory in bytes, of the coordinator and of each host."""

    coordinator: int
    hosts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run found; ``summary.json`` has the same names.

    Attributes:
        ensemble: the vote of the finalists, where the algorithm offers one.
        baselines: founders, their average, and what the config's ``baselines`` adds.
        evaluations: distinct individuals scored on dev by the search.
        examples: dev examples that they were scored on.
        generations: number of the last generation; the founders are generation 0.
        stopped_by: the budget's key that ended the search, "caller", or "no new candidates".
        seconds: from the start of the process that finished the run.
        looks_at_test: how many times a winner was chosen and scored on test: 1, and one more for each
            extension of a finished run.
    """

    winner: ResultRow
    ensemble: ResultRow | None
    baselines: tuple[ResultRow, ...]
    algorithm: str
    evaluations: int
    examples: int
    generations: int
    stopped_by: str
    seconds: float
    seed: int
    time: TimeUse
    peak_memory_bytes: PeakMemory
    versions: Mapping[str, str]
    looks_at_test: int = 1

    @property
    def winner_id(self) -> str:
        return str(self.winner.id)

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """The winner, the ensemble if there is one, and the baselines."""
        ensemble = () if self.ensemble is None else (self.ensemble,)
        return (self.winner, *ensemble, *self.baselines)

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``summary.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` gave.

        Raises:
            KeyError, TypeError, AttributeError: ``data`` is something else.
        """
        ensemble = data["ensemble"]
        parts = {
            "winner": _row(data["winner"]),
            "ensemble": None if ensemble is None else _row(ensemble),
            "baselines": tuple(_row(row) for row in data["baselines"]),
            "time": TimeUse(**data["time"]),
            "peak_memory_bytes": PeakMemory(**data["peak_memory_bytes"]),
        }
        return cls(**{**data, **parts})


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write a summary, whole or not at all."""
    write_json(path, summary.as_json())


def read_summary(path: Path) -> RunSummary | None:
    """Read a summary; None where the run has not finished.

    Raises:
        EvoError: the file is damaged.
    """
    try:
        return RunSummary.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvoError(
            f"{path}: damaged ({type(error).__name__}: {error}). Restore the file"
        ) from error


def _row(data: Mapping[str, Any]) -> ResultRow:
    tasks = {name: TaskScore(**score) for name, score in data["tasks"].items()}
    return ResultRow(**{**data, "tasks": tasks})
