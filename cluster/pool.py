"""Pool: the protocol of hosts and a scorer.

The contract, tested by one suite for every pool: each submitted job completes exactly once, with
scores or with an error; jobs complete in any order; a result goes to the caller that waits for its
key, so several callers in one thread can share a pool; a lost host costs a retry, not the run; each
event is returned once; closing twice has no effect.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from cluster.errors import PoolError as PoolError
from cluster.jobs import HostStats, Job, JobResult, PoolEvent

IN_FLIGHT = 2  # calls per host: one that runs, and one that can begin as soon as it ends


class Pool(Protocol):
    """Runs jobs on hosts. Not thread-safe."""

    @property
    def hosts(self) -> int:
        """Number of hosts that can run jobs now; at least 1, also while all are being replaced."""
        ...

    @property
    def pending(self) -> int:
        """Jobs submitted whose results have not been taken."""
        ...

    def submit(self, job: Job) -> int:
        """Queue a job; return its key, which the pool uses once. Never blocks.

        The pool bounds the work in flight for each host.
        """
        ...

    def wait(self, keys: Collection[int] | None = None) -> JobResult:
        """Wait for the next result: of one of the jobs ``keys``, or by default of any job.

        Raises:
            LookupError: none of these jobs is pending.
            PoolError: no host can be kept alive.
        """
        ...

    def cancel(self, keys: Collection[int]) -> frozenset[int]:
        """Remove the jobs ``keys`` that have not begun; return their keys.

        The other jobs complete as usual.
        """
        ...

    def stats(self) -> tuple[HostStats, ...]:
        """Figures of each host."""
        ...

    def events(self) -> tuple[PoolEvent, ...]:
        """Events since the last call, oldest first."""
        ...

    def close(self) -> None:
        """End the hosts; drop pending jobs."""
        ...


def run_all(pool: Pool, jobs: Iterable[Job]) -> Iterator[JobResult]:
    """Submit all jobs; yield their results in order of completion."""
    waiting = {pool.submit(job) for job in jobs}
    while waiting:
        result = pool.wait(waiting)
        waiting.remove(result.job.key)
        yield result


class Completed:
    """Results that are not taken yet, in order of completion."""

    def __init__(self) -> None:
        self._results: dict[int, JobResult] = {}

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: JobResult) -> None:
        self._results[result.job.key] = result

    def take(self, keys: Collection[int] | None) -> JobResult | None:
        """Remove and return the first result of the jobs ``keys`` (None: any); None if there is none."""
        found = next((key for key in self._results if keys is None or key in keys), None)
        return None if found is None else self._results.pop(found)

    def clear(self) -> None:
        self._results.clear()
