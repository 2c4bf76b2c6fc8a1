"""Pool: a number of hosts and scorers behind four calls; and LocalPool, which needs no Ray.

The contract, which one suite of tests puts to every pool: each submitted job completes exactly
once, with scores or with a failure that says why; completion comes in any order; a host that is
lost costs a retry, not the run; what happened to hosts is told once, as events; closing twice is
harmless.
"""

from collections import deque
from collections.abc import Iterable, Iterator
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

    def submit(self, job: Job) -> None:
        """Queue a job. Never blocks; work in flight per host is bounded inside."""
        ...

    def wait(self) -> JobResult:
        """The next result, as soon as there is one.

        Raises:
            LookupError: nothing is pending.
            PoolError: no host can be kept alive.
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
    """Submit all jobs; give their results in order of completion."""
    waiting = 0
    for job in jobs:
        pool.submit(job)
        waiting += 1
    for _ in range(waiting):
        yield pool.wait()


class LocalPool:
    """One host in this process. Jobs run when their result is waited for, in order: small ones together
    with those behind them.
    """

    def __init__(self, spec: PoolSpec) -> None:
        self._host = ModelHost(spec.host)
        self._scorer = FitnessScorer(spec.tasks)
        self._call_sizer = CallSizer()
        self._queue: deque[Job] = deque()
        self._done: deque[JobResult] = deque()

    @property
    def hosts(self) -> int:
        return 1

    @property
    def pending(self) -> int:
        return len(self._queue) + len(self._done)

    def submit(self, job: Job) -> None:
        self._queue.append(job)

    def wait(self) -> JobResult:
        if not self.pending:
            raise LookupError("no job is pending")
        if not self._done:
            self._run_some()
        return self._done.popleft()

    def stats(self) -> tuple[HostStats, ...]:
        return (self._host.stats(),)

    def events(self) -> tuple[PoolEvent, ...]:
        return ()

    def close(self) -> None:
        self._queue.clear()
        self._done.clear()

    def _run_some(self) -> None:
        before = self._host.stats()
        queries = self._queue[0].queries
        most = self._call_sizer.size(before.host, queries, queued=len(self._queue), hosts=1)
        jobs: list[Job] = []
        while self._queue and len(jobs) < most and self._queue[0].queries == queries:
            jobs.append(self._queue.popleft())
        answers = self._host.run_all(jobs)
        self._call_sizer.learn(jobs, before, self._host.stats())
        self._done += map(self._scorer.score, jobs, answers)
