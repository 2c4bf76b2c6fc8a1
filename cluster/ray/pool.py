"""RayPool: who does what, on hosts and a scorer that are Ray actors and may die at any instant.

Jobs go to a host (which answers), then their answers to the scorer (which scores), and come back: so
many in one call that it is worth one, and alone where one may be the death of its host.
Every step is waited for here, so this pool alone knows what was lost with whom; what is redone, and
how often, is the ledger's to say; where hosts live is the roster's.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic, sleep
from typing import Any, Self

from ray.exceptions import RayError, RayTaskError

from cluster.call_size import CallSizer
from cluster.degraded import DegradedEvents
from cluster.founders.transfer import Shipping
from cluster.host.resources import cores
from cluster.jobs import HostStats, Job, JobResult, PoolEvent, PoolSpec, Timing
from cluster.pool import IN_FLIGHT, Completed, PoolError
from cluster.ray.actors import ask_host, reason_of, wait_for
from cluster.ray.connect import join_ray, ray, start_ray
from cluster.ray.host_manager import Host, HostCall, HostManager
from cluster.ray.metrics import PoolMetrics
from cluster.ray.placement import HostNeeds
from cluster.ray.retries import Loss, RetryTracker
from cluster.ray.scoring import Scoring, Waiting
from cluster.ray.transfer import RemoteFileSource, start_source

TICK_S = 1.0  # how often deadlines and nodes are looked at
LATECOMERS_S = 30.0  # how long hosts on a cluster that others use too are waited for
BACKLOG = 4  # answers per host that may wait for the scorer before hosts get no more work


class RayPool:
    """Hosts and a scorer as Ray actors.

    Uses the Ray that is initialised in this process, or joins the cluster at ``address``, or starts
    one of its own and ends it on close. Nodes of a cluster get the founders' files as ``shipping`` says.
    ``hosts`` None follows the cluster: as many as each node has room for, now and when nodes join.
    ``gpus`` is the share of a GPU, or number of GPUs, that each host gets. ``metrics`` is the name under
    which what the pool does goes to Ray's metrics; None keeps it to itself.

    Raises:
        PoolError: the hosts can't be started; the message has the host's own error.
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
        self._deadline_s = deadline_s
        self._tick_s = min(TICK_S, deadline_s / 4)
        self._queue: deque[Job] = deque()
        self._submitted = 0
        self._pending: set[int] = set()  # keys of jobs whose results were not taken
        self._completed = Completed()
        self._events: list[PoolEvent] = []
        self._degraded = DegradedEvents()
        self._retries = RetryTracker(deadline_s)
        self._call_sizer = CallSizer(deadline_s)
        self._metrics = PoolMetrics(metrics)
        self._last_loss = ""
        self._waiting: Waiting = {}
        needs = HostNeeds(
            engine.threads,
            gpus if gpus is not None else float(engine.device.startswith("cuda")),
            int((spec.host.memory_gib or 0) * 2**30),
            labels or {},
        )
        # A Ray of our own is this machine, where every path leads to the same files.
        ships = shipping == "always" or (shipping == "auto" and address is not None)
        self._source: RemoteFileSource | None = start_source(spec.host, shipping) if ships else None
        self._hosts = HostManager(ray.put((spec.host, self._source)), needs, hosts, self._note)
        self._scoring = Scoring(
            ray.put(spec.tasks),
            self._waiting,
            deadline_s=deadline_s,
            done=self._finish,
            lost_answer=self._redo,
            lose=self._lose,
            note=self._note,
        )
        self._hostless_s = -inf  # the first start has its own time limit
        self._ticked = monotonic()
        try:
            self._open()
            self._hostless_s = 0.0
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
        """Process ids, each on its own node, of the hosts that are ready, by host name."""
        return {h.name: h.pid for h in self._hosts.ready}

    @property
    def scorer_pid(self) -> int:
        """The scorer's process id; 0 while it is starting."""
        return self._scoring.pid

    def submit(self, job: Job) -> int:
        job = replace(job, key=self._submitted)
        self._submitted += 1
        self._pending.add(job.key)
        self._queue.append(job)  # sent with the next wait: with others, if they are small
        return job.key

    def wait(self, keys: Collection[int] | None = None) -> JobResult:
        if self._pending.isdisjoint(self._pending if keys is None else keys):
            raise LookupError("no such job is pending")
        result = self._completed.take(keys)
        if result is None:
            self._feed()
        while result is None:
            self._step()
            result = self._completed.take(keys)
        self._pending.remove(result.job.key)
        return result

    def cancel(self, keys: Collection[int]) -> frozenset[int]:
        jobs = [job for job in self._queue if job.key in keys]
        for job in jobs:
            self._retries.forget(job)
        cancelled = frozenset(job.key for job in jobs)
        self._queue = deque(job for job in self._queue if job.key not in cancelled)
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

    def _open(self) -> None:
        """Start everything; return when the scorer and all hosts are ready.

        Hosts that follow the cluster may find it in use: those that are ready do not wait for long.
        """
        self._hosts.check()
        self._fill()
        until = monotonic() + self.start_timeout_s
        while self._hosts.starting or not self._scoring.pid:
            self._step()
            if self._hosts.last_error:
                raise PoolError(f"a model host could not start: {self._hosts.last_error}")
            some = self._wanted is None and self._hosts.ready and self._scoring.pid
            if some:
                until = min(until, monotonic() + LATECOMERS_S)
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
        """Wait a while for anything to happen, and see to it."""
        pause = max(0.0, self._ticked + self._tick_s - monotonic())
        if self._waiting:
            for reference in wait_for(list(self._waiting), pause):
                if reference in self._waiting:  # not if its host fell just before
                    self._waiting.pop(reference)(reference)
        else:
            sleep(pause)
        if monotonic() - self._ticked >= self._tick_s:
            self._tick()
        self._feed()

    def _tick(self) -> None:
        """See to all that announces itself by no reference: nodes, deadlines, missing hosts."""
        before, now = self._ticked, monotonic()
        self._ticked = now
        self._hosts.census()
        for host in self._hosts.stranded:
            self._salvage(host)
            self._end(host, Loss("node", "its node is gone"), "host lost")
        for host in self._hosts:
            if host.lane.overdue(now, self._deadline_s):
                self._salvage(host)
            if host.lane.overdue(now, self._deadline_s):
                self._end(host, Loss("slow", f"over {self._deadline_s:g} s"), "deadline")
        self._scoring.tick(now, self.start_timeout_s)
        flying = [flight for host in self._hosts for flight in host.lane]
        busy = sum(len(flight.jobs) for flight in (*flying, *self._scoring))
        self._metrics.now(hosts=len(self._hosts.ready), in_flight=busy)
        unscored = self._scoring.hosts
        for host in self._hosts.leaving:
            self._withdraw(host)
            if not host.lane and host not in unscored:
                self._hosts.remove(host)
                self._note("host let go", f"{host}: its node is being drained")
        self._fill()
        # Nobody looked while nobody waited, so that time does not count.
        self._hostless_s += min(now - before, 2 * self._tick_s)
        if self._hosts.ready or self._hosts.leaving:
            self._hostless_s = 0.0
        elif self._hostless_s > self.start_timeout_s:
            why = self._hosts.last_error or self._last_loss
            raise PoolError(
                f"all hosts are lost (last: {why}), and none could be started within "
                f"{self.start_timeout_s:g} s; {self._hosts.shortage()}. Nothing that was scored is "
                "lost: resume the run when the cluster is well again"
            )

    def _fill(self) -> None:
        for host in self._hosts.fill(monotonic()):
            self._waiting[host.hello] = partial(self._on_hello, host)

    def _feed(self) -> None:
        ready = self._hosts.ready
        while self._queue and ready and len(self._scoring) < BACKLOG * len(ready):
            free = [host for host in ready if self._may_take(host, self._queue[0])]
            if not free:
                return
            host = min(free, key=lambda h: len(h.lane))
            jobs = self._next_jobs(host, len(ready))
            note, answers = ask_host(host.actor, jobs)
            flight = HostCall(jobs, host, note, answers, tuple(range(len(jobs))))
            host.lane.add(flight, monotonic())
            self._waiting[note] = partial(self._on_note, flight)

    def _may_take(self, host: Host, job: Job) -> bool:
        """Whether the host has room for the job. One that was lost before has no company, or others
        might be lost with it again and again.
        """
        if self._retries.is_suspect(job):
            return not host.lane
        flying = (known for flight in host.lane for known in flight.jobs)
        return len(host.lane) < IN_FLIGHT and not any(map(self._retries.is_suspect, flying))

    def _next_jobs(self, host: Host, hosts: int) -> tuple[Job, ...]:
        """What the host is to do in one call: jobs that ask the same, or one that must be alone."""
        first = self._queue[0]
        most = self._call_sizer.size(host.name, first.queries, queued=len(self._queue), hosts=hosts)
        jobs = [self._queue.popleft()]
        while len(jobs) < most and not self._retries.is_suspect(first):
            job = self._queue[0]
            if job.queries != first.queries or self._retries.is_suspect(job):
                break
            jobs.append(self._queue.popleft())
        return tuple(jobs)

    def _on_hello(self, host: Host, reference: Any) -> None:
        try:
            self._hosts.arrived(host, ray.get(reference))
        except RayError as error:
            self._hosts.start_failed(host, error, monotonic())

    def _on_note(self, flight: HostCall, reference: Any) -> None:
        host = flight.host
        try:
            stats = ray.get(reference)
        except RayTaskError as error:  # the call failed and the host lives
            host.lane.remove(flight, monotonic())
            self._redo(flight, Loss("error", reason_of(error)))
        except RayError as error:
            # What it had answered before it died counts; the first that it had not was running.
            self._salvage(host)
            alone = not self._hosts.is_node_gone(host, error)
            self._end(host, Loss("host" if alone else "node", reason_of(error)), "host lost")
            self._fill()
        else:
            self._land(flight, stats)

    def _salvage(self, host: Host) -> None:
        """Take the answers that are there and were not seen yet."""
        for flight in host.lane:
            try:
                stats = ray.get(flight.note, timeout=0)
            except RayError:  # not there yet, or lost
                return
            self._waiting.pop(flight.note, None)
            self._land(flight, stats)

    def _land(self, flight: HostCall, stats: HostStats) -> None:
        host = flight.host
        if host.stats is not None:
            self._call_sizer.learn(flight.jobs, host.stats, stats)
        host.stats = stats
        self._events += self._degraded.new(stats)
        host.lane.remove(flight, monotonic())
        self._scoring.add(flight)

    def _end(self, host: Host, loss: Loss, kind: str) -> None:
        """Kill the host. What it was running has lost an attempt; what waited there just moves."""
        flights = host.lane.clear()
        for flight in flights:
            self._waiting.pop(flight.note, None)
        for flight in reversed(flights[1:]):
            self._queue.extendleft(reversed(flight.jobs))
        self._last_loss = loss.reason
        what = f"; it was at {flights[0]}" if flights else ""
        self._note(kind, f"{host}: {loss.reason}{what}")
        if flights:
            self._redo(flights[0], loss)
        self._hosts.remove(host)

    def _withdraw(self, host: Host) -> None:
        """Move what the host has not begun."""
        for flight in tuple(host.lane)[1:]:
            self._waiting.pop(flight.note, None)
            host.lane.remove(flight, monotonic())
            self._queue.extendleft(reversed(flight.jobs))

    def _lose(self, flight: HostCall, loss: Loss) -> bool:
        """Charge the flight's only job with a loss. Whether it may be tried again; else it is done."""
        (job,) = flight.jobs
        verdict = self._retries.lose(job, loss)
        if isinstance(verdict, Job):
            flight.jobs = (verdict,)
            self._metrics.retry()
            return True
        self._end_with(JobResult(job, (), flight.host.name, Timing(), verdict))
        return False

    def _redo(self, flight: HostCall, loss: Loss) -> None:
        """What was lost is to be done again, each alone: of several, that shows which is to blame."""
        self._retries.suspect(flight.jobs)
        if len(flight.jobs) == 1 and not self._lose(flight, loss):
            return
        self._queue.extendleft(reversed(flight.jobs))

    def _finish(self, result: JobResult) -> None:
        self._retries.forget(result.job)
        self._end_with(result)

    def _end_with(self, result: JobResult) -> None:
        self._metrics.done(result)
        self._completed.add(result)

    def _note(self, kind: str, detail: str) -> None:
        self._events.append(PoolEvent(kind, detail))
