"""RayPool: thin actors around ModelHost and FitnessScorer, with retries and back-pressure.

Ray sees only this shell. Hosts are never restarted or retried by Ray (its own retry is
at-least-once): a host that dies raises at once for all its calls, and this pool decides what to
redo and where, so that every job still completes exactly once.
"""

import os
import sys
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from ray.exceptions import GetTimeoutError, RayError

from cluster.connect import (
    join_ray,
    ray,
    start_ray,
)  # before anything else of ray: it sets how ray behaves
from cluster.host import ModelHost
from cluster.jobs import (
    HostAnswer,
    HostSpec,
    HostStats,
    Job,
    JobResult,
    PoolEvent,
    PoolSpec,
    Timing,
)
from cluster.pool import PoolError
from cluster.ray_shipping import RemoteSource, localised, start_source
from cluster.scorer import FitnessScorer
from cluster.shipping import Shipping
from fitness.tasks import Task

IN_FLIGHT = 2  # calls per host: the next one is there when the current one ends
MAX_ATTEMPTS = 3


def _find_modules(path: list[str]) -> None:
    """Users' functions are found by name where the coordinator finds them."""
    sys.path.extend(p for p in path if p not in sys.path)


class HostActor:
    """A ModelHost in a process of its own."""

    def __init__(
        self, spec: HostSpec, name: str, path: list[str], source: RemoteSource | None
    ) -> None:
        _find_modules(path)
        self._host = ModelHost(localised(spec, source), name)

    def run(self, job: Job) -> HostAnswer:
        return self._host.run(job)

    def stats(self) -> HostStats:
        return self._host.stats()

    def pid(self) -> int:
        return os.getpid()


class ScorerActor:
    """A FitnessScorer in a process of its own."""

    def __init__(self, tasks: tuple[Task, ...], path: list[str]) -> None:
        _find_modules(path)
        self._scorer = FitnessScorer(tasks)

    def score(self, job: Job, answer: HostAnswer) -> JobResult:
        return self._scorer.score(job, answer)


@dataclass(eq=False, slots=True)
class _Flight:
    job: Job
    host: "_Host"
    answer: Any  # reference to a HostAnswer; goes from host to scorer without passing through here


@dataclass(eq=False, slots=True)
class _Host:
    name: str
    actor: Any
    flights: list[_Flight] = field(default_factory=list)  # in the order the host runs them
    killer: _Flight | None = None  # what it was running when it died


class RayPool:
    """Hosts and a scorer as Ray actors.

    Uses the Ray that is initialised in this process, or joins the cluster at ``address``, or starts
    one of its own and ends it on close. Nodes of a cluster get the founders' files as ``shipping`` says.

    Raises:
        PoolError: the hosts can't be started; the message has the host's own error.
    """

    def __init__(
        self,
        spec: PoolSpec,
        *,
        hosts: int,
        start_timeout_s: float = 300.0,
        address: str | None = None,
        shipping: Shipping = "auto",
    ) -> None:
        if hosts < 1:
            raise ValueError(f"pool.hosts must be 1 or more, got {hosts}")
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray and address is not None:
            join_ray(address)
        elif self._owns_ray:
            start_ray(hosts * spec.host.engine.threads)
        self._scorer: Any = None
        self._source: RemoteSource | None = None
        self._hosts: list[_Host] = []
        self._queue: deque[Job] = deque()
        self._done: deque[JobResult] = deque()
        self._flights: dict[Any, _Flight] = {}
        self._started = 0
        self._engine = spec.host.engine
        self._gpus = 1 if self._engine.device.startswith("cuda") else 0
        have = ray.cluster_resources().get("GPU", 0.0)
        if have < hosts * self._gpus:
            self.close()
            raise PoolError(
                f"engine.device: {self._engine.device} needs a GPU for each of {hosts} hosts, and the "
                f"cluster has {have:g}. Use device: cpu, or fewer hosts"
            )
        # A Ray of our own is this machine, where every path leads to the same files.
        wants_source = shipping == "always" or (shipping == "auto" and address is not None)
        self._source = start_source(spec.host, shipping) if wants_source else None
        self._spec = ray.put(spec.host)
        self._tasks = ray.put(spec.tasks)
        self._scorer = self._start_scorer()
        self._hosts = [self._start_host() for _ in range(hosts)]
        try:
            ray.get([h.actor.stats.remote() for h in self._hosts], timeout=start_timeout_s)
        except GetTimeoutError as error:
            free = ray.available_resources().get("CPU", 0.0)
            self.close()
            raise PoolError(
                f"{hosts} hosts of {self._engine.threads} threads did not start within "
                f"{start_timeout_s:g} s; the cluster has {free:g} processors free. Ask for fewer "
                "(pool.hosts, engine.threads), or raise pool.start_timeout_s"
            ) from error
        except RayError as error:
            self.close()
            raise PoolError(f"a model host could not start: {_last_line(error)}") from error

    @property
    def hosts(self) -> int:
        return len(self._hosts)

    @property
    def pending(self) -> int:
        return len(self._queue) + len(self._flights) + len(self._done)

    @property
    def host_pids(self) -> dict[str, int]:
        """Process ids of the hosts that live on this machine, by host name."""
        return {h.name: ray.get(h.actor.pid.remote()) for h in self._hosts}

    def submit(self, job: Job) -> None:
        self._queue.append(job)
        self._feed()

    def wait(self) -> JobResult:
        if not self.pending:
            raise LookupError("no job is pending")
        while not self._done:
            ready, _ = ray.wait(list(self._flights), num_returns=1)
            self._land(ready[0])
            self._feed()
        return self._done.popleft()

    def stats(self) -> tuple[HostStats, ...]:
        return tuple(ray.get([h.actor.stats.remote() for h in self._hosts]))

    def events(self) -> tuple[PoolEvent, ...]:
        return ()

    def close(self) -> None:
        self._queue.clear()
        self._flights.clear()
        if ray.is_initialized():
            for actor in self._actors():
                ray.kill(actor)
            if self._owns_ray:
                ray.shutdown()
        self._hosts = []

    def _actors(self) -> list[Any]:
        source = self._source.actor if self._source else None
        return [a for a in (self._scorer, source, *(h.actor for h in self._hosts)) if a is not None]

    def _feed(self) -> None:
        while self._queue:
            host = min(self._hosts, key=lambda h: len(h.flights))
            if len(host.flights) >= IN_FLIGHT:
                return
            self._launch(self._queue.popleft(), host)

    def _launch(self, job: Job, host: _Host) -> None:
        answer = host.actor.run.remote(job)
        result = self._scorer.score.remote(job, answer)
        flight = _Flight(job, host, answer)
        host.flights.append(flight)
        self._flights[result] = flight

    def _land(self, reference: Any) -> None:
        """Take one finished flight: its result, or another attempt, or a failure for good."""
        flight = self._flights.pop(reference)
        host = flight.host
        try:
            self._done.append(ray.get(reference))
            host.flights.remove(flight)
            return
        except RayError as error:
            reason = _last_line(error)
        if _is_lost(flight.answer):
            if host.killer is None:
                # The first that it did not finish was running; those behind it only waited.
                host.killer = next(f for f in host.flights if _is_lost(f.answer))
                self._hosts[self._hosts.index(host)] = self._start_host()
            blamed = flight is host.killer
        else:
            self._scorer = self._start_scorer()
            blamed = True
        host.flights.remove(flight)
        attempt = flight.job.attempt + blamed
        if attempt <= MAX_ATTEMPTS:
            self._queue.appendleft(replace(flight.job, attempt=attempt))
        else:
            text = f"lost with its host {MAX_ATTEMPTS} times, last: {reason}"
            self._done.append(JobResult(flight.job, (), host.name, Timing(), text))

    def _start_host(self) -> _Host:
        name = f"host-{self._started}"
        self._started += 1
        actor = (
            ray.remote(HostActor)
            .options(
                num_cpus=self._engine.threads,
                num_gpus=self._gpus,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self._spec, name, sys.path, self._source)
        )
        return _Host(name, actor)

    def _start_scorer(self) -> Any:
        actor = ray.remote(ScorerActor).options(num_cpus=0, max_restarts=0, max_task_retries=0)
        return actor.remote(self._tasks, sys.path)


def _is_lost(answer: Any) -> bool:
    """Whether the host died before it answered."""
    try:
        ray.get(answer)
    except RayError:  # however it was lost: actor, node or memory
        return True
    return False


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
