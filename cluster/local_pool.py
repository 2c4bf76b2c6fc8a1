"""LocalPool: a pool of one host in the caller's process, without Ray."""

from collections import deque
from collections.abc import Collection
from dataclasses import replace
from itertools import islice, takewhile
from typing import Self

from cluster.call_size import CallSizer
from cluster.degraded import DegradedEvents
from cluster.host.model_host import ModelHost
from cluster.host.scorer import FitnessScorer
from cluster.jobs import HostStats, Job, JobResult, PoolEvent, PoolSpec
from cluster.pool import Completed
from operators.tensors.threads import torch_threads


class LocalPool:
    """One host and one scorer in this process.

    Jobs run inside ``wait``, in the order of submission; short jobs run in one call with those behind
    them. Outside the constructor and ``wait``, torch has the caller's number of threads.
    """

    def __init__(self, spec: PoolSpec) -> None:
        self._host = ModelHost(spec.host)
        self._scorer = FitnessScorer(spec.tasks)
        self._threads = spec.host.engine.threads
        self._call_sizer = CallSizer()
        self._submitted = 0
        self._degraded = DegradedEvents()
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
        return tuple(self._degraded.new(self._host.stats()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._queue.clear()
        self._completed.clear()

    def _run_some(self) -> None:
        before = self._host.stats()
        queries = self._queue[0].queries
        most = self._call_sizer.size(before.host, queries, queued=len(self._queue), hosts=1)
        jobs = list(takewhile(lambda job: job.queries == queries, islice(self._queue, most)))
        with torch_threads(self._threads):
            results = list(map(self._scorer.score, jobs, self._host.run_all(jobs)))
        # After they ran, so that interrupted jobs stay in the queue.
        for result in results:
            self._queue.popleft()
            self._completed.add(result)
        self._call_sizer.learn(jobs, before, self._host.stats())
