"""RetryTracker: which lost jobs run again and which have failed. TimedQueue: since when one runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeAlias, TypeVar

from cluster.jobs import Job

MAX_ATTEMPTS = 3
MAX_LOSSES = 10  # with losses that are not the job's fault, so that no job runs for ever

Cause: TypeAlias = Literal["host", "node", "slow", "scorer", "slow scoring", "answer", "error"]
_NOT_THE_JOBS_FAULT = ("node", "answer")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loss:
    """Why an attempt gave no result."""

    cause: Cause
    reason: str

    @property
    def is_attempt(self) -> bool:
        """Whether it counts as a failed attempt of the job: not where a node or an answer was lost."""
        return self.cause not in _NOT_THE_JOBS_FAULT


class RetryTracker:
    """Records the losses of every job. A job fails after `MAX_ATTEMPTS` attempts or `MAX_LOSSES` losses."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline = f"longer than pool.deadline_s ({deadline_s:g} s)"
        self._losses: dict[int, list[Loss]] = {}
        self._isolated: set[int] = set()

    def is_isolated(self, job: Job) -> bool:
        """Whether the job must run alone on a host, so that failures are attributed correctly."""
        return job.key in self._isolated

    def isolate(self, jobs: Iterable[Job]) -> None:
        """Run jobs alone from now on, as they were lost in one call."""
        self._isolated.update(job.key for job in jobs)

    def record(self, job: Job, loss: Loss) -> Job | str:
        """Record a loss; return the job to run again, or the error if it has failed."""
        losses = self._losses.setdefault(job.key, [])
        losses.append(loss)
        attempts = [known for known in losses if known.is_attempt]
        if len(attempts) < MAX_ATTEMPTS and len(losses) < MAX_LOSSES:
            return replace(job, attempt=job.attempt + loss.is_attempt)
        self.forget(job)
        return self._failure(attempts if len(attempts) >= MAX_ATTEMPTS else losses)

    def forget(self, job: Job) -> None:
        """Drop what is known of a job that is done."""
        self._losses.pop(job.key, None)
        self._isolated.discard(job.key)

    def _failure(self, losses: list[Loss]) -> str:
        causes = {loss.cause for loss in losses}
        if len(causes) > 1:
            each = "; ".join(self._sentence(loss.cause, "", loss.reason) for loss in losses)
            return f"failed {len(losses)} times: {each}"
        last = losses[-1]
        return self._sentence(last.cause, f" {len(losses)} times", f"last: {last.reason}")

    def _sentence(self, cause: Cause, times: str, reason: str) -> str:
        if cause == "slow":
            hosts = times.replace("times", "hosts")
            return f"took {self._deadline}" + (f" on{hosts}" if hosts else "")
        if cause == "slow scoring":
            return f"scoring took {self._deadline}{times}"
        what = {
            "host": "lost with its host",
            "node": "lost with its node",
            "scorer": "scoring: lost with its scorer",
            "answer": "its answer was lost before it was scored",
            "error": "could not be run",
        }[cause]
        return f"{what}{times}, {reason}" if times else f"{what}: {reason}"


class TimedQueue(Generic[T]):
    """The work of one process, in the order it will be done, and the time when the first item began."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._items))

    def add(self, item: T, now: float) -> None:
        if not self._items:
            self._since = now
        self._items.append(item)

    def remove(self, item: T, now: float) -> None:
        if item is self._items[0]:
            self._since = now
        self._items.remove(item)

    def restart(self, now: float) -> None:
        """Count the first item's time from ``now``."""
        self._since = now

    def clear(self) -> tuple[T, ...]:
        """Remove and return all items."""
        items, self._items = tuple(self._items), []
        return items

    def overdue(self, now: float, deadline_s: float) -> bool:
        """Whether the first item has taken longer than ``deadline_s``."""
        return bool(self._items) and now - self._since > deadline_s
