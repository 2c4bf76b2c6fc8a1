"""JobQueue: the jobs that wait for a host, and which host gets which of them next."""

from collections import deque
from collections.abc import Collection, Sequence

from cluster.call_size import CallSizer
from cluster.jobs import HostStats, Job
from cluster.pool import IN_FLIGHT
from cluster.ray.host_manager import Host
from cluster.ray.retries import RetryTracker


class JobQueue:
    """Jobs in order of submission; those that must run again come first.

    Successive jobs with the same queries go to a host in one call, as many as `CallSizer` says. A job
    that was lost before goes alone to a host without other jobs, so that failures are attributed correctly.
    """

    def __init__(self, retries: RetryTracker, deadline_s: float) -> None:
        self._jobs: deque[Job] = deque()
        self._retries = retries
        self._call_sizer = CallSizer(deadline_s)

    def add(self, job: Job) -> None:
        """Append a job."""
        self._jobs.append(job)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Insert jobs at the front, in their order."""
        self._jobs.extendleft(reversed(jobs))

    def cancel(self, keys: Collection[int]) -> frozenset[int]:
        """Remove the jobs ``keys`` that are in the queue; return their keys."""
        jobs = [job for job in self._jobs if job.key in keys]
        for job in jobs:
            self._retries.forget(job)
        cancelled = frozenset(job.key for job in jobs)
        self._jobs = deque(job for job in self._jobs if job.key not in cancelled)
        return cancelled

    def clear(self) -> None:
        self._jobs.clear()

    def next_call(self, ready: Sequence[Host]) -> tuple[Host, tuple[Job, ...]] | None:
        """Remove and return the jobs of the next call, and its host: the one of ``ready`` with fewest calls.

        None if the queue is empty or no host may take the first job.
        """
        if not self._jobs:
            return None
        free = [host for host in ready if self._may_take(host, self._jobs[0])]
        if not free:
            return None
        host = min(free, key=lambda h: len(h.calls))
        return host, self._take(host, len(ready))

    def learn(self, jobs: Sequence[Job], before: HostStats, after: HostStats) -> None:
        """Use the time that a host took for ``jobs``, from two of its stats, to size later calls."""
        self._call_sizer.learn(jobs, before, after)

    def _may_take(self, host: Host, job: Job) -> bool:
        if self._retries.is_isolated(job):
            return not host.calls
        running = (job for call in host.calls for job in call.jobs)
        return len(host.calls) < IN_FLIGHT and not any(map(self._retries.is_isolated, running))

    def _take(self, host: Host, hosts: int) -> tuple[Job, ...]:
        first = self._jobs[0]
        most = self._call_sizer.size(host.name, first.queries, queued=len(self._jobs), hosts=hosts)
        jobs = [self._jobs.popleft()]
        while len(jobs) < most and not self._retries.is_isolated(first):
            job = self._jobs[0]
            if job.queries != first.queries or self._retries.is_isolated(job):
                break
            jobs.append(self._jobs.popleft())
        return tuple(jobs)
