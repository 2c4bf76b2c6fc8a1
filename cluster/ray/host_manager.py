"""HostManager: starts, replaces and removes the hosts of a pool, and knows the state of each."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Literal

from ray.exceptions import RayError

from cluster.jobs import HostStats, Job
from cluster.pool import PoolError
from cluster.ray.actors import Waiting, died_with_node, read_nodes, reason_of, start_host
from cluster.ray.connect import ray
from cluster.ray.placement import ClusterNode, HostNeeds, missing, pause_s, room
from cluster.ray.retries import TimedQueue


@dataclass(eq=False, slots=True)
class HostCall:
    """Jobs sent to a host in one call, or their answers sent to the scorer.

    ``stats`` is a reference to the host's `HostStats`: it is there when the host is done, and raises when the
    host died. ``answers`` is a reference to the `HostResult` s; ``positions`` are those of the jobs' in it.
    """

    jobs: tuple[Job, ...]
    host: "Host"
    stats: Any
    answers: Any
    positions: tuple[int, ...]

    def split(self) -> "list[HostCall]":
        """One call for each job."""
        each = zip(self.jobs, self.positions, strict=True)
        return [HostCall((job,), self.host, self.stats, self.answers, (i,)) for job, i in each]

    def __str__(self) -> str:
        first, last = self.jobs[0].key, self.jobs[-1].key
        return f"job {first}" if len(self.jobs) == 1 else f"one of the jobs {first} to {last}"


@dataclass(eq=False, slots=True)
class Host:
    """A host's process. ``place`` is the node that it was started for, or `ANYWHERE`."""

    name: str
    place: str
    actor: Any
    state: Literal["starting", "ready", "draining"] = "starting"
    node: str = ""
    pid: int = 0
    stats: HostStats | None = None
    calls: TimedQueue[HostCall] = field(default_factory=TimedQueue)

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}, node {self.node[:8]})" if self.pid else self.name


@dataclass(slots=True)
class _FailedStarts:
    """Failed starts in a row at one place, and when to try again."""

    count: int = 0
    until: float = 0.0


class HostManager:
    """The hosts of one pool. Only hosts that are ``ready`` get jobs.

    ``spec`` is a reference to what `HostActor` needs; ``wanted`` is the number of hosts, None for as many as
    the nodes have room for; ``add_event`` takes an event's kind and detail.
    """

    def __init__(
        self,
        spec: Any,
        needs: HostNeeds,
        wanted: int | None,
        waiting: Waiting,
        add_event: Callable[[str, str], None],
    ) -> None:
        self.needs = needs
        self._spec = spec
        self._wanted = wanted
        self._waiting = waiting
        self._add_event = add_event
        self._hosts: list[Host] = []
        self._nodes: dict[str, ClusterNode] = {n.id: n for n in read_nodes()}
        self._failed_starts: dict[str, _FailedStarts] = {}
        self._started = 0
        self.last_error = ""  # of the last host that could not start on a node that is alive

    def __iter__(self) -> Iterator[Host]:
        return iter(tuple(self._hosts))

    @property
    def ready(self) -> list[Host]:
        return [h for h in self._hosts if h.state == "ready"]

    @property
    def starting(self) -> list[Host]:
        return [h for h in self._hosts if h.state == "starting"]

    @property
    def draining(self) -> list[Host]:
        return [h for h in self._hosts if h.state == "draining"]

    @property
    def on_lost_nodes(self) -> list[Host]:
        """Hosts whose node was gone at the last `update_nodes`."""
        return [h for h in self._hosts if h.node and h.node not in self._nodes]

    def update_nodes(self) -> None:
        """Read the cluster's nodes; report those that joined, drain or are gone."""
        before, self._nodes = self._nodes, {n.id: n for n in read_nodes()}
        for node in self._nodes.values():
            if node.id not in before:
                self._add_event("node joined", f"{node.id[:8]}, {node.cpus:g} processors")
                self._failed_starts.pop(node.id, None)
            elif node.draining and not before[node.id].draining:
                self._add_event("node draining", node.id[:8])
        for gone in before.keys() - self._nodes.keys():
            self._add_event("node lost", gone[:8])
        for host in self._hosts:
            node_now = self._nodes.get(host.node)
            if node_now is not None and node_now.draining:
                host.state = "draining"

    def check_room(self) -> None:
        """Check that the nodes can hold the hosts.

        Raises:
            PoolError: they can't; says what a host needs.
        """
        count, needs = self._wanted or 1, self.needs
        gpus = sum(node.gpus for node in self._nodes.values())
        if count * needs.gpus > gpus:
            raise PoolError(
                f"each of {count} hosts needs {needs.gpus:g} GPU (engine.device, "
                f"pool.gpus_per_host), and the cluster has {gpus:g}. Use device: cpu, or fewer hosts"
            )
        if self._wanted is None and not any(room(node, needs) for node in self._nodes.values()):
            raise PoolError(f"no node of the cluster has room for a host: it needs {needs}")

    def fill(self) -> None:
        """Start the hosts that are missing."""
        now = monotonic()
        placed = Counter(h.place for h in self._hosts if h.state != "draining")
        paused = [place for place, failed in self._failed_starts.items() if now < failed.until]
        nodes = tuple(self._nodes.values())
        for place in missing(self._wanted, nodes, self.needs, placed, paused):
            name = f"host-{self._started}"
            self._started += 1
            host = Host(name, place, start_host(self._spec, name, place, self.needs))
            self._hosts.append(host)
            self._waiting[host.actor.info.remote()] = partial(self._on_info, host)

    def is_node_gone(self, host: Host, error: RayError) -> bool:
        """Whether the host was lost together with its node."""
        return died_with_node(error) or host.node not in {n.id for n in read_nodes()}

    def shortage(self) -> str:
        """What a host needs and what the cluster has free, as a part of an error."""
        free = ray.available_resources()
        cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
        has = f"{cpus:g} processors and {gpus:g} GPU free"
        return f"a host needs {self.needs}, and the cluster has {has}"

    def remove(self, host: Host) -> None:
        """Kill the host and forget it."""
        ray.kill(host.actor)
        self._hosts.remove(host)

    def close(self) -> None:
        """Kill all hosts."""
        for host in self:
            self.remove(host)

    def _on_info(self, host: Host, reference: Any) -> None:
        try:
            info = ray.get(reference)
        except RayError as error:
            self._on_failed_start(host, error)
            return
        host.state, host.node, host.pid, host.stats = "ready", info.node, info.pid, info.stats
        self._failed_starts.pop(host.place, None)
        self._add_event("host ready", str(host))

    def _on_failed_start(self, host: Host, error: RayError) -> None:
        """Start nothing at the host's place for a while, longer after each failure there."""
        self._add_event("host not started", f"{host.name}: {reason_of(error)}")
        if not died_with_node(error):
            self.last_error = reason_of(error)
        failed = self._failed_starts.setdefault(host.place, _FailedStarts())
        failed.count += 1
        failed.until = monotonic() + pause_s(failed.count)
        self.remove(host)
