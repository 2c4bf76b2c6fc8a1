"""Placement: on which nodes to start how many hosts, as pure functions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

ANYWHERE = ""  # in place of a node's id: Ray chooses a node with room, now or later
_EPSILON = 1e-6  # Ray counts in ten-thousandths; 1 / 0.1 must be ten


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node that is alive, and its total resources. ``memory`` in bytes."""

    id: str
    cpus: float
    gpus: float = 0.0
    memory: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class HostNeeds:
    """Resources of one host. ``gpus`` may be a fraction; ``memory`` in bytes, 0 for no limit."""

    cpus: int
    gpus: float = 0.0
    memory: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.cpus} processor" + "s" * (self.cpus != 1)]
        if self.gpus:
            parts.append(f"{self.gpus:g} GPU")
        if self.memory:
            parts.append(f"{self.memory / 2**30:g} GiB of memory")
        parts += [f"a node labelled {key}={value}" for key, value in self.labels.items()]
        return ", ".join(parts)


def room(node: ClusterNode, needs: HostNeeds) -> int:
    """The number of hosts that the node can hold if it is empty."""
    if node.draining or any(node.labels.get(k) != v for k, v in needs.labels.items()):
        return 0
    fits = [floor(node.cpus / needs.cpus + _EPSILON)]
    if needs.gpus >= 1:
        fits.append(floor(node.gpus / needs.gpus + _EPSILON))
    elif needs.gpus:  # a host can't use parts of two GPUs
        fits.append(floor(node.gpus) * floor(1 / needs.gpus + _EPSILON))
    if needs.memory:
        fits.append(floor(node.memory / needs.memory))
    return min(fits)


def missing(
    wanted: int | None,
    nodes: Sequence[ClusterNode],
    needs: HostNeeds,
    placed: Mapping[str, int],
    paused: Collection[str] = (),
) -> tuple[str, ...]:
    """The place of each host to start: a node's id, or `ANYWHERE`.

    Args:
        wanted: number of hosts, wherever Ray has room; None for as many as each node has room for.
        placed: number of hosts that run or are starting, by their place.
        paused: places where no host is started now.
    """
    if wanted is not None:
        return () if ANYWHERE in paused else (ANYWHERE,) * (wanted - sum(placed.values()))
    return tuple(
        node.id
        for node in nodes
        if node.id not in paused
        for _ in range(room(node, needs) - placed.get(node.id, 0))
    )


def pause_s(failures: int) -> float:
    """Seconds before the next start at a place after so many failures there in a row: 1, 2, 4 ... 60."""
    return min(60.0, 2.0 ** (failures - 1))
