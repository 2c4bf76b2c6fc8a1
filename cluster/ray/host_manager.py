"""HostManager: which hosts there are, where, and in what state; it starts, replaces and lets go of them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ray.exceptions import RayError

from cluster.jobs import HostStats, Job
from cluster.pool import PoolError
from cluster.ray.actors import Hello, died_with_node, read_nodes, reason_of, start_host
from cluster.ray.connect import ray
from cluster.ray.placement import ClusterNode, HostNeeds, missing, pause_s, room
from cluster.ray.retries import TimedQueue


@dataclass(eq=False, slots=True)
class HostCall:
    """Jobs with a host in one call, or their answers with the scorer."""

    jobs: tuple[Job, ...]
    host: "Host"
    note: Any  # reference; tells when the host is done, or that it died
    answers: Any  # reference to HostResults, in which each job's is at its place
    places: tuple[int, ...]

    def split(self) -> "list[HostCall]":
        """One for each job."""
        each = zip(self.jobs, self.places, strict=True)
        return [HostCall((job,), self.host, self.note, self.answers, (i,)) for job, i in each]

    def __str__(self) -> str:
        first, last = self.jobs[0].key, self.jobs[-1].key
        return f"job {first}" if len(self.jobs) == 1 else f"one of the jobs {first} to {last}"


@dataclass(eq=False, slots=True)
class Host:
    """A host's process. ``hello`` is a reference to what it says when it is ready."""

    name: str
    place: str  # the node that it was started for, or ANYWHERE
    actor: Any
    hello: Any
    state: Literal["starting", "ready", "leaving"] = "starting"
    node: str = ""
    pid: int = 0
    stats: HostStats | None = None
    lane: TimedQueue[HostCall] = field(default_factory=TimedQueue)

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}, node {self.node[:8]})" if self.pid else self.name


@dataclass(slots=True)
class _Trouble:
    """Failed starts in a row at one place, and when to try there again."""

    failures: int = 0
    until: float = 0.0


class HostManager:
    """The hosts of one pool. Work goes to those that are ``ready``; times are of one monotonic clock.

    ``wanted`` is how many there shall be; None is as many as every node of the cluster has room for.
    ``note`` takes an event's kind and detail.
    """

    def __init__(
        self, spec: Any, needs: HostNeeds, wanted: int | None, note: Callable[[str, str], None]
    ) -> None:
        self.needs = needs
        self._spec = spec
        self._wanted = wanted
        self._note = note
        self._hosts: list[Host] = []
        self._nodes: dict[str, ClusterNode] = {n.id: n for n in read_nodes()}
        self._trouble: dict[str, _Trouble] = {}
        self._started = 0
        self.last_error = ""  # of a host that could not start though its node lives

    def __iter__(self) -> Iterator[Host]:
        return iter(tuple(self._hosts))

    @property
    def ready(self) -> list[Host]:
        return [h for h in self._hosts if h.state == "ready"]

    @property
    def starting(self) -> list[Host]:
        return [h for h in self._hosts if h.state == "starting"]

    @property
    def leaving(self) -> list[Host]:
        return [h for h in self._hosts if h.state == "leaving"]

    @property
    def stranded(self) -> list[Host]:
        """Hosts of which the node is gone, as the last census saw it."""
        return [h for h in self._hosts if h.node and h.node not in self._nodes]

    @property
    def nodes(self) -> tuple[ClusterNode, ...]:
        return tuple(self._nodes.values())

    def census(self) -> None:
        """Look at the cluster's nodes: who joined, who is gone, whose hosts must leave."""
        before, self._nodes = self._nodes, {n.id: n for n in read_nodes()}
        for node in self._nodes.values():
            if node.id not in before:
                self._note("node joined", f"{node.id[:8]}, {node.cpus:g} processors")
                self._trouble.pop(node.id, None)
            elif node.draining and not before[node.id].draining:
                self._note("node draining", node.id[:8])
        for gone in before.keys() - self._nodes.keys():
            self._note("node lost", gone[:8])
        for host in self._hosts:
            here = self._nodes.get(host.node)
            if here is not None and here.draining:
                host.state = "leaving"

    def check(self) -> None:
        """Refuse what no node has room for.

        Raises:
            PoolError: says what a host needs.
        """
        count, needs = self._wanted or 1, self.needs
        gpus = sum(node.gpus for node in self.nodes)
        if count * needs.gpus > gpus:
            raise PoolError(
                f"each of {count} hosts needs {needs.gpus:g} GPU (engine.device, "
                f"pool.gpus_per_host), and the cluster has {gpus:g}. Use device: cpu, or fewer hosts"
            )
        if self._wanted is None and not any(room(node, needs) for node in self.nodes):
            raise PoolError(f"no node of the cluster has room for a host: it needs {needs}")

    def fill(self, now: float) -> list[Host]:
        """Start the hosts that are missing."""
        placed = Counter(h.place for h in self._hosts if h.state != "leaving")
        resting = [place for place, trouble in self._trouble.items() if now < trouble.until]
        places = missing(self._wanted, self.nodes, self.needs, placed, resting)
        return [self._start(place) for place in places]

    def arrived(self, host: Host, hello: Hello) -> None:
        """The host can work."""
        host.state, host.node, host.pid, host.stats = "ready", hello.node, hello.pid, hello.stats
        self._trouble.pop(host.place, None)
        self._note("host ready", str(host))

    def start_failed(self, host: Host, error: RayError, now: float) -> None:
        """Give the host's place a rest that grows with every failure there."""
        self._note("host not started", f"{host.name}: {reason_of(error)}")
        if not died_with_node(error):
            self.last_error = reason_of(error)
        trouble = self._trouble.setdefault(host.place, _Trouble())
        trouble.failures += 1
        trouble.until = now + pause_s(trouble.failures)
        self.remove(host)

    def is_node_gone(self, host: Host, error: RayError) -> bool:
        """Whether it was not the host alone that was lost."""
        return died_with_node(error) or host.node not in {n.id for n in read_nodes()}

    def shortage(self) -> str:
        """What a host needs beside what there is, for an error."""
        free = ray.available_resources()
        cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
        has = f"{cpus:g} processors and {gpus:g} GPU free"
        return f"a host needs {self.needs}, and the cluster has {has}"

    def remove(self, host: Host) -> None:
        """Make sure that the host is dead, and forget it."""
        ray.kill(host.actor)
        self._hosts.remove(host)

    def close(self) -> None:
        """End all hosts."""
        for host in self:
            self.remove(host)

    def _start(self, place: str) -> Host:
        name = f"host-{self._started}"
        self._started += 1
        actor = start_host(self._spec, name, place, self.needs)
        host = Host(name, place, actor, actor.hello.remote())
        self._hosts.append(host)
        return host
