"""Pool: hosts and scorers behind one protocol; and LocalPool, which needs no Ray.

The contract, tested by one suite for every pool: each submitted job completes exactly once, with
scores or with an error; jobs complete in any order; a result is given to the caller who waits for its
key, so several callers in one thread can share a pool; a lost host costs a retry, not the run; each
event of a host is given once; closing twice is harmless.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice, takewhile
from typing import Protocol

from cluster.call_size import CallSizer
from cluster.errors import PoolError as PoolError
from cluster.host.model_host import ModelHost
from cluster.host.scorer import FitnessScorer
from cluster.jobs import HostStats, Job, JobResult, PoolEvent, PoolSpec

IN_FLIGHT = 2  # jobs per host: the next one is there when the current one ends


class Pool(Protocol):
    """Runs jobs on hosts. Not thread-safe: one coordinator owns it."""

    @property
    def hosts(self) -> int:
        """How many hosts can take work now; at least 1, also while all of them are being replaced."""
        ...

    @property
    def pending(self) -> int:
        """Jobs submitted whose results have not been taken."""
        ...

    def submit(self, job: Job) -> int:
        """Queue a job; return its key, unique in the pool's life. Never blocks.

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
        """Remove those of the jobs ``keys`` that have not begun; return their keys.

        The other jobs complete as usual.
        """
        ...

    def stats(self) -> tuple[HostStats, ...]:
        """An account of each host."""
        ...

    def events(self) -> tuple[PoolEvent, ...]:
        """What happened to hosts since the last call, oldest first."""
        ...

    def close(self) -> None:
        """Let go of hosts and memory; pending jobs are dropped."""
        ...


def run_all(pool: Pool, jobs: Iterable[Job]) -> Iterator[JobResult]:
    """Submit all jobs; yield their results in order of completion."""
    waiting = {pool.submit(job) for job in jobs}
    while waiting:
        result = pool.wait(waiting)
        waiting.remove(result.job.key)
        yield result


class Completed:
    """Results that nobody has taken yet, in order of completion."""

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


class LocalPool:
    """One host in this process. Jobs run when their result is waited for, in order: small ones together
    with those behind them.
    """

    def __init__(self, spec: PoolSpec) -> None:
        self._host = ModelHost(spec.host)
        self._scorer = FitnessScorer(spec.tasks)
        self._call_sizer = CallSizer()
        self._submitted = 0
        self._queue: deque[Job] = deque()
        self._completed = Completed()

    @property
    def hosts(self) -> int:
        return 1

    @property
    def pending(self) -> int:
        return len(self._queue) + len(self._completed)

    def submit(self, job: Job) -> int:
        job = replace(job, key=self._submitted)
        self._submitted += 1
        self._queue.append(job)
        return job.key

    def wait(self, keys: Collection[int] | None = None) -> JobResult:
        while (result := self._completed.take(keys)) is None:
            if not self._queue:
                raise LookupError("no such job is pending")
            self._run_some()
        return result

    def cancel(self, keys: Collection[int]) -> frozenset[int]:
        cancelled = frozenset(job.key for job in self._queue if job.key in keys)
        self._queue = deque(job for job in self._queue if job.key not in cancelled)
        return cancelled

    def stats(self) -> tuple[HostStats, ...]:
        return (self._host.stats(),)

    def events(self) -> tuple[PoolEvent, ...]:
        return ()

    def close(self) -> None:
        self._queue.clear()
        self._completed.clear()

    def _run_some(self) -> None:
        before = self._host.stats()
        queries = self._queue[0].queries
        most = self._call_sizer.size(before.host, queries, queued=len(self._queue), hosts=1)
        jobs = list(takewhile(lambda job: job.queries == queries, islice(self._queue, most)))
        results = list(map(self._scorer.score, jobs, self._host.run_all(jobs)))
        # Only now: jobs that were interrupted stay in the queue.
        for result in results:
            self._queue.popleft()
            self._completed.add(result)
        self._call_sizer.learn(jobs, before, self._host.stats())
