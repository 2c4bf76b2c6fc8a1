"""RayPool: a pool whose hosts and scorer are Ray actors, which may die at any time.

A job goes to a host, its answers to the scorer, and its result to the caller. The pool waits for each
step itself, so it knows what a lost process was doing. The parts: `JobQueue` (jobs that wait for a host),
`HostManager` (hosts and nodes), `HostCalls` (jobs at hosts), `Scoring` (answers at the scorer) and
`RetryTracker` (which lost jobs run again).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import inf
from time import monotonic, sleep
from typing import Self

from cluster.degraded import DegradedEvents
from cluster.founders.transfer import Shipping
from cluster.host.resources import cores
from cluster.jobs import HostStats, Job, JobResult, PoolEvent, PoolSpec, Timing
from cluster.pool import Completed, PoolError
from cluster.ray.actors import Waiting, wait_for
from cluster.ray.connect import join_ray, ray, start_ray
from cluster.ray.host_calls import HostCalls
from cluster.ray.host_manager import HostCall, HostManager
from cluster.ray.job_queue import JobQueue
from cluster.ray.metrics import PoolMetrics
from cluster.ray.placement import HostNeeds
from cluster.ray.retries import Loss, RetryTracker
from cluster.ray.scoring import Scoring
from cluster.ray.transfer import RemoteFileSource, start_source

TICK_S = 1.0  # time between two checks of deadlines and nodes
LATE_HOSTS_S = 30.0  # time to wait for more hosts on a cluster that others use too
BACKLOG = 4  # calls per host that may wait for the scorer before hosts get no more jobs


class RayPool:
    """Hosts and a scorer as Ray actors.

    Uses the Ray that is initialised in this process, or joins the cluster at ``address``, or starts a
    private Ray and ends it on close.

    Args:
        spec: founders, engine, requests and tasks.
        hosts: number of hosts; None for as many as the nodes have room for, also when nodes join later.
        start_timeout_s: seconds that hosts and the scorer may take to start.
        deadline_s: seconds that one job may take on a host, or at the scorer.
        gpus: GPUs for each host, or a share of one; None for 1 if the engine runs on CUDA, else 0.
        labels: labels of the nodes that hosts may run on.
        shipping: when nodes get the founders' files from the coordinator.
        metrics: the run's name in Ray's metrics; None for no metrics.

    Raises:
        PoolError: hosts or the scorer can't start; the message contains their error.
    """

    def __init__(
        self,
        spec: PoolSpec,
        *,
        hosts: int | None,
        start_timeout_s: float = 300.0,
        deadline_s: float = 3600.0,
        gpus: float | None = None,
        labels: Mapping[str, str] | None = None,
        address: str | None = None,
        shipping: Shipping = "auto",
        metrics: str | None = None,
    ) -> None:
        if hosts is not None and hosts < 1:
            raise ValueError(f"pool.hosts must be 1 or more, got {hosts}")
        engine = spec.host.engine
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray and address is not None:
            join_ray(address)
        elif self._owns_ray:
            start_ray(hosts * engine.threads if hosts else max(cores(), engine.threads))
        self._wanted = hosts
        self.start_timeout_s = start_timeout_s
        self._tick_s = min(TICK_S, deadline_s / 4)
        self._submitted = 0
        self._pending: set[int] = set()  # keys of jobs whose results were not taken
        self._completed = Completed()
        self._events: list[PoolEvent] = []
        self._degraded = DegradedEvents()
        self._retries = RetryTracker(deadline_s)
        self._metrics = PoolMetrics(metrics)
        self._waiting: Waiting = {}
        needs = HostNeeds(
            engine.threads,
            gpus if gpus is not None else float(engine.device.startswith("cuda")),
            int((spec.host.memory_gib or 0) * 2**30),
            labels or {},
        )
        # A private Ray runs on this machine, where every path leads to the same files.
        ships = shipping == "always" or (shipping == "auto" and address is not None)
        self._source: RemoteFileSource | None = start_source(spec.host, shipping) if ships else None
        self._queue = JobQueue(self._retries, deadline_s)
        self._hosts = HostManager(
            ray.put((spec.host, self._source)), needs, hosts, self._waiting, self._add_event
        )
        self._calls = HostCalls(
            self._hosts,
            self._queue,
            self._waiting,
            deadline_s=deadline_s,
            answered=self._on_answers,
            retry=self._retry,
            add_event=self._add_event,
        )
        self._scoring = Scoring(
            ray.put(spec.tasks),
            self._waiting,
            deadline_s=deadline_s,
            done=self._complete,
            retry=self._retry,
            count_loss=self._count_loss,
            add_event=self._add_event,
        )
        self._without_hosts_s = -inf  # the first start has its own time limit
        self._ticked = monotonic()
        try:
            self._start()
            self._without_hosts_s = 0.0
        except BaseException:
            self.close()
            raise

    @property
    def hosts(self) -> int:
        """Hosts that are ready; 1 while all of them are being replaced."""
        return max(1, len(self._hosts.ready))

    @property
    def pending(self) -> int:
        return len(self._pending)

    @property
    def host_pids(self) -> dict[str, int]:
        """Process id of each ready host, on its own node, by host name."""
        return {h.name: h.pid for h in self._hosts.ready}

    @property
    def scorer_pid(self) -> int:
        """The scorer's process id; 0 while it is starting."""
        return self._scoring.pid

    def submit(self, job: Job) -> int:
        job = replace(job, key=self._submitted)
        self._submitted += 1
        self._pending.add(job.key)
        self._queue.add(job)  # sent with the next wait, so that small jobs can share a call
        return job.key

    def wait(self, keys: Collection[int] | None = None) -> JobResult:
        if self._pending.isdisjoint(self._pending if keys is None else keys):
            raise LookupError("no such job is pending")
        result = self._completed.take(keys)
        if result is None:
            self._send()
        while result is None:
            self._step()
            result = self._completed.take(keys)
        self._pending.remove(result.job.key)
        return result

    def cancel(self, keys: Collection[int]) -> frozenset[int]:
        cancelled = self._queue.cancel(keys)
        self._pending -= cancelled
        return cancelled

    def stats(self) -> tuple[HostStats, ...]:
        return tuple(h.stats for h in self._hosts.ready if h.stats is not None)

    def events(self) -> tuple[PoolEvent, ...]:
        events = tuple(self._events)
        self._events.clear()
        return events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for work in (self._pending, self._queue, self._completed, self._waiting):
            work.clear()
        if ray.is_initialized():
            self._hosts.close()
            self._scoring.close()
            if self._source is not None:
                ray.kill(self._source.actor)
            if self._owns_ray:
                ray.shutdown()

    def _start(self) -> None:
        """Start hosts and scorer; return when all are ready.

        Where ``hosts`` is None and other users hold part of the cluster, return after `LATE_HOSTS_S`
        with the hosts that are ready.
        """
        self._hosts.check_room()
        self._hosts.fill()
        until = monotonic() + self.start_timeout_s
        while self._hosts.starting or not self._scoring.pid:
            self._step()
            if self._hosts.last_error:
                raise PoolError(f"a model host could not start: {self._hosts.last_error}")
            some = self._wanted is None and self._hosts.ready and self._scoring.pid
            if some:
                until = min(until, monotonic() + LATE_HOSTS_S)
            if monotonic() <= until:
                continue
            if some:
                return
            count = f"{self._wanted} hosts" if self._wanted else "hosts"
            hosts = f"{count} of {self._hosts.needs.cpus} threads"
            raise PoolError(
                f"{hosts if self._hosts.starting else 'the scorer'} did not start within "
                f"{self.start_timeout_s:g} s; {self._hosts.shortage()}. Ask for less (pool.hosts, "
                "engine.threads), or raise pool.start_timeout_s"
            )

    def _step(self) -> None:
        """Wait for the next reference or tick, and handle what is there."""
        pause = max(0.0, self._ticked + self._tick_s - monotonic())
        if self._waiting:
            for reference in wait_for(list(self._waiting), pause):
                if reference in self._waiting:  # a handler before this one may have removed it
                    self._waiting.pop(reference)(reference)
        else:
            sleep(pause)
        if monotonic() - self._ticked >= self._tick_s:
            self._tick()
        self._send()

    def _tick(self) -> None:
        """Check what no reference announces: nodes, deadlines, missing hosts."""
        before, now = self._ticked, monotonic()
        self._ticked = now
        self._hosts.update_nodes()
        self._calls.end_lost_hosts(now)
        self._scoring.tick(now, self.start_timeout_s)
        calls = [call for host in self._hosts for call in host.calls]
        in_flight = sum(len(call.jobs) for call in (*calls, *self._scoring))
        self._metrics.now(hosts=len(self._hosts.ready), in_flight=in_flight)
        self._calls.end_draining_hosts(self._scoring.hosts)
        self._hosts.fill()
        # A caller that did not wait for a while is no sign that hosts are missing for so long.
        self._without_hosts_s += min(now - before, 2 * self._tick_s)
        if self._hosts.ready or self._hosts.draining:
            self._without_hosts_s = 0.0
        elif self._without_hosts_s > self.start_timeout_s:
            why = self._hosts.last_error or self._calls.last_loss
            raise PoolError(
                f"all hosts are lost (last: {why}), and none could be started within "
                f"{self.start_timeout_s:g} s; {self._hosts.shortage()}. All scores are kept: "
                "resume the run when the cluster is available again"
            )

    def _send(self) -> None:
        while len(self._scoring) < BACKLOG * len(self._hosts.ready) and self._calls.send_next():
            pass

    def _on_answers(self, call: HostCall, stats: HostStats) -> None:
        self._events += self._degraded.new(stats)
        self._scoring.add(call)

    def _count_loss(self, call: HostCall, loss: Loss) -> bool:
        """Record a loss of the call's only job; return whether it runs again. If not, it has failed."""
        (job,) = call.jobs
        verdict = self._retries.record(job, loss)
        if isinstance(verdict, Job):
            call.jobs = (verdict,)
            self._metrics.retry()
            return True
        self._complete(JobResult(job, (), call.host.name, Timing(), verdict))
        return False

    def _retry(self, call: HostCall, loss: Loss) -> None:
        """Queue the jobs of a lost call again, each to run alone: so it shows which of them fails."""
        self._retries.isolate(call.jobs)
        if len(call.jobs) == 1 and not self._count_loss(call, loss):
            return
        self._queue.put_back(call.jobs)

    def _complete(self, result: JobResult) -> None:
        self._retries.forget(result.job)
        self._metrics.done(result)
        self._completed.add(result)

    def _add_event(self, kind: str, detail: str) -> None:
        self._events.append(PoolEvent(kind, detail))
