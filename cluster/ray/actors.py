"""Actors: thin shells around ModelHost and FitnessScorer, and the functions that start and call them.

Ray neither restarts them nor repeats their calls (its own retry runs a call at least once, so maybe twice).
An actor that dies raises for all its calls, and the pool decides what runs again and where.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayError

from cluster.founders.checkpoints import mapped_bytes
from cluster.host.model_host import ModelHost
from cluster.host.resources import limit_memory
from cluster.host.scorer import FitnessScorer
from cluster.jobs import HostResult, HostSpec, HostStats, Job, JobResult
from cluster.ray.connect import ray
from cluster.ray.placement import ANYWHERE, ClusterNode, HostNeeds
from cluster.ray.transfer import RemoteFileSource, localised
from fitness.tasks.task import Task

# The handler of each reference that a pool waits for: called once, with the reference, when it is there.
Waiting: TypeAlias = dict[Any, Callable[[Any], None]]

_ONCE = {"max_restarts": 0, "max_task_retries": 0}


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """An actor's process id, its node's id, and the stats of a host; available once it has started."""

    pid: int
    node: str
    stats: HostStats | None = None


class HostActor:
    """A ModelHost in its own process."""

    def __init__(
        self, shipped: tuple[HostSpec, RemoteFileSource | None], name: str, path: list[str]
    ) -> None:
        _extend_path(path)
        spec = localised(*shipped)
        if spec.memory_gib is not None:
            mapped = mapped_bytes((spec.base, *spec.founders))
            limit_memory(int(spec.memory_gib * 2**30) + mapped)
        self._host = ModelHost(spec, name)

    def info(self) -> ActorInfo:
        return ActorInfo(os.getpid(), _node(), self._host.stats())

    def run(self, jobs: tuple[Job, ...]) -> tuple[HostStats, tuple[HostResult, ...]]:
        """Run the jobs; return two objects: small stats for the pool, and the answers for the scorer."""
        answers = self._host.run_all(jobs)
        return self._host.stats(), answers


class ScorerActor:
    """A FitnessScorer in its own process."""

    def __init__(self, tasks: tuple[Task, ...], path: list[str]) -> None:
        _extend_path(path)
        self._scorer = FitnessScorer(tasks)

    def info(self) -> ActorInfo:
        return ActorInfo(os.getpid(), _node())

    def score(
        self, jobs: tuple[Job, ...], positions: tuple[int, ...], answers: tuple[HostResult, ...]
    ) -> tuple[JobResult, ...]:
        """Score each job by the answer at its position in ``answers``."""
        each = zip(jobs, positions, strict=True)
        return tuple(self._scorer.score(job, answers[position]) for job, position in each)


def start_host(spec: Any, name: str, place: str, needs: HostNeeds) -> Any:
    """Start a HostActor of ``spec`` (a reference) on the node ``place``, or on any node with room."""
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, **_ONCE}
    if needs.memory:
        options["memory"] = needs.memory
    if place != ANYWHERE:
        options["scheduling_strategy"] = _affinity(place)
    elif needs.labels:
        options["label_selector"] = dict(needs.labels)
    return ray.remote(HostActor).options(**options).remote(spec, name, sys.path)


def start_scorer(tasks: Any) -> Any:
    """Start a ScorerActor of ``tasks`` (a reference) on this node, whose loss ends the run anyway."""
    options = {"num_cpus": 0, "scheduling_strategy": _affinity(_node()), **_ONCE}
    return ray.remote(ScorerActor).options(**options).remote(tasks, sys.path)


def call_host(actor: Any, jobs: tuple[Job, ...]) -> tuple[Any, Any]:
    """Call a host; return references to its stats and to the answers, which go directly to the scorer."""
    stats, answers = actor.run.options(num_returns=2).remote(jobs)
    return stats, answers


def wait_for(references: list[Any], timeout_s: float) -> list[Any]:
    """Wait for one of the references; return all that are ready then, or none after ``timeout_s``."""
    try:
        ready, rest = ray.wait(references, num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
    except SystemError as error:
        # Ray wraps what a signal handler raises during the wait.
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
    return ready


def read_nodes() -> tuple[ClusterNode, ...]:
    """The cluster's nodes that are alive."""
    from ray._private.state import state  # no public API tells which nodes are draining

    draining = state.get_draining_nodes()
    return tuple(
        ClusterNode(
            n["NodeID"],
            cpus=n["Resources"].get("CPU", 0.0),
            gpus=n["Resources"].get("GPU", 0.0),
            memory=n["Resources"].get("memory", 0.0),
            labels=n["Labels"],
            draining=n["NodeID"] in draining,
        )
        for n in ray.nodes()
        if n["Alive"]
    )


def reason_of(error: RayError) -> str:
    """Why an actor died, in one line: its own error, or Ray's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if isinstance(error, OutOfMemoryError):
        return f"killed by Ray because its node ran out of memory ({lines[0] if lines else last})"
    if "Worker exit type: SYSTEM_ERROR" in last:
        return "its process was killed (the system does that when memory runs out) or crashed"
    return re.sub(r"\x1b\[\d*m", "", last)


def died_with_node(error: RayError) -> bool:
    """Whether Ray reports that the actor died, or could not start, because its node is gone."""
    if isinstance(error, ActorUnschedulableError):
        return True
    return "its node has died" in str(error) or "node was terminated" in str(error)


def _extend_path(path: list[str]) -> None:
    """Let this process import users' functions from where the coordinator imports them."""
    sys.path.extend(p for p in path if p not in sys.path)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _affinity(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
