"""Where hosts go: which nodes have room for how many, as pure functions of what the nodes are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

ANYWHERE = ""  # in place of a node's id: Ray finds a node with room, now or later
_EPSILON = 1e-6  # Ray counts in ten-thousandths; 1 / 0.1 must be ten


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A living node and what it has in all, used or not. ``memory`` in bytes."""

    id: str
    cpus: float
    gpus: float = 0.0
    memory: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class HostNeeds:
    """What one host takes of a node. ``gpus`` may be a fraction; ``memory`` in bytes, 0 for any."""

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
    """How many hosts the node can hold in all."""
    if node.draining or any(node.labels.get(k) != v for k, v in needs.labels.items()):
        return 0
    fits = [floor(node.cpus / needs.cpus + _EPSILON)]
    if needs.gpus >= 1:
        fits.append(floor(node.gpus / needs.gpus + _EPSILON))
    elif needs.gpus:  # a host's fraction is of one GPU: three halves do not fit on 1.5 of two
        fits.append(floor(node.gpus) * floor(1 / needs.gpus + _EPSILON))
    if needs.memory:
        fits.append(floor(node.memory / needs.memory))
    return min(fits)


def missing(
    wanted: int | None,
    nodes: Sequence[ClusterNode],
    needs: HostNeeds,
    placed: Mapping[str, int],
    resting: Collection[str] = (),
) -> tuple[str, ...]:
    """Where to start hosts: one node id for each, or `ANYWHERE`.

    ``wanted`` is how many there shall be, wherever Ray has room; None follows the cluster: as many as
    every node has room for. ``placed`` counts those that live or are starting, by the place that they
    were started for. No host is started for a place that is ``resting``.
    """
    if wanted is not None:
        return () if ANYWHERE in resting else (ANYWHERE,) * (wanted - sum(placed.values()))
    return tuple(
        node.id
        for node in nodes
        if node.id not in resting
        for _ in range(room(node, needs) - placed.get(node.id, 0))
    )


def pause_s(failures: int) -> float:
    """Seconds to leave a place alone after so many failed starts there in a row: 1, 2, 4 ... 60."""
    return min(60.0, 2.0 ** (failures - 1))
