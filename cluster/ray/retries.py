"""Who is to blame for lost work, how often it is tried again, and since when something runs. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeAlias, TypeVar

from cluster.jobs import Job

MAX_ATTEMPTS = 3
MAX_LOSSES = 10  # with those that no candidate is to blame for, so that nothing goes on for ever

Cause: TypeAlias = Literal["host", "node", "slow", "scorer", "slow scoring", "answer", "error"]
_BLAMELESS = ("node", "answer")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loss:
    """Why an attempt came to nothing. A node or an answer that goes away is not the candidate's doing."""

    cause: Cause
    reason: str

    @property
    def blamed(self) -> bool:
        return self.cause not in _BLAMELESS


class RetryTracker:
    """Counts what every job lost, and decides when it has lost too often."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline = f"longer than pool.deadline_s ({deadline_s:g} s)"
        self._losses: dict[int, list[Loss]] = {}
        self._suspects: set[int] = set()

    def is_suspect(self, job: Job) -> bool:
        """Whether the job was lost before. It is to have a host to itself: whoever is with it might take
        the blame for it, or it for them.
        """
        return job.key in self._suspects

    def suspect(self, jobs: Iterable[Job]) -> None:
        """Jobs were lost in one call."""
        self._suspects.update(job.key for job in jobs)

    def lose(self, job: Job, loss: Loss) -> Job | str:
        """The job to do again, one attempt on if it is to blame; or why it failed for good."""
        losses = self._losses.setdefault(job.key, [])
        losses.append(loss)
        blamed = [known for known in losses if known.blamed]
        if len(blamed) < MAX_ATTEMPTS and len(losses) < MAX_LOSSES:
            return replace(job, attempt=job.attempt + loss.blamed)
        self.forget(job)
        return self._failure(blamed if len(blamed) >= MAX_ATTEMPTS else losses)

    def forget(self, job: Job) -> None:
        """The job is done."""
        self._losses.pop(job.key, None)
        self._suspects.discard(job.key)

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
    """What one process has before it, in the order it will do it, and since when it does the first."""

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
        """The first begins only now."""
        self._since = now

    def clear(self) -> tuple[T, ...]:
        """Empty the lane; what was in it."""
        items, self._items = tuple(self._items), []
        return items

    def overdue(self, now: float, deadline_s: float) -> bool:
        """Whether the first has been running for longer than ``deadline_s``."""
        return bool(self._items) and now - self._since > deadline_s
