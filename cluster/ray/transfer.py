"""Transfer of founders through Ray: hosts call an actor on the coordinator's node."""

from dataclasses import dataclass
from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.founders.transfer import FounderManifest, LocalFileSource, Shipping, localise
from cluster.jobs import HostSpec
from cluster.ray.connect import ray


@dataclass(frozen=True, slots=True)
class RemoteFileSource:
    """A `FileSource` that calls an actor of `LocalFileSource`; ``mode`` says when a host fetches."""

    actor: Any
    mode: Shipping

    def outline(self, founder: int) -> tuple[tuple[str, int], ...]:
        return ray.get(self.actor.outline.remote(founder))  # type: ignore[no-any-return]

    def manifest(self, founder: int) -> FounderManifest:
        return ray.get(self.actor.manifest.remote(founder))  # type: ignore[no-any-return]

    def read(self, founder: int, name: str, offset: int, size: int) -> bytes:
        return ray.get(self.actor.read.remote(founder, name, offset, size))  # type: ignore[no-any-return]

    def sent(self) -> int:
        """Bytes sent to all hosts so far."""
        return ray.get(self.actor.sent.remote())  # type: ignore[no-any-return]


def start_source(spec: HostSpec, mode: Shipping) -> RemoteFileSource:
    """Start a source on the coordinator's node, which has the founders' files."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(LocalFileSource).options(
        num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=here
    )
    return RemoteFileSource(actor.remote(spec), mode)


def localised(spec: HostSpec, source: RemoteFileSource | None) -> HostSpec:
    """``spec`` with paths of this node; unchanged if there is no source."""
    return spec if source is None else localise(spec, source, source.mode)
