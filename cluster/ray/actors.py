"""What Ray sees: thin actors around ModelHost and FitnessScorer, and how they are started and asked.

Ray never restarts them and never retries a call (its own retry is at-least-once): one that dies
raises for all its calls, and the pool decides what to redo and where.
"""

import os
import re
import sys
from dataclasses import dataclass
from typing import Any

from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayError

from cluster.host.model_host import ModelHost, mapped_bytes
from cluster.host.resources import limit_memory
from cluster.host.scorer import FitnessScorer
from cluster.jobs import HostResult, HostSpec, HostStats, Job, JobResult
from cluster.ray.connect import ray
from cluster.ray.placement import ANYWHERE, ClusterNode, HostNeeds
from cluster.ray.transfer import RemoteFileSource, localised
from fitness.tasks.task import Task

_ONCE = {"max_restarts": 0, "max_task_retries": 0}


@dataclass(frozen=True, slots=True)
class Hello:
    """What an actor says of itself once it can work: its process, and the id of its node."""

    pid: int
    node: str
    stats: HostStats | None = None


class HostActor:
    """A ModelHost in a process of its own."""

    def __init__(
        self, shipped: tuple[HostSpec, RemoteFileSource | None], name: str, path: list[str]
    ) -> None:
        _find_modules(path)
        spec = localised(*shipped)
        if spec.memory_gib is not None:
            limit_memory(int(spec.memory_gib * 2**30) + mapped_bytes(spec))
        self._host = ModelHost(spec, name)

    def hello(self) -> Hello:
        return Hello(os.getpid(), _node(), self._host.stats())

    def run(self, jobs: tuple[Job, ...]) -> tuple[HostStats, tuple[HostResult, ...]]:
        """Two objects: a note that is small enough to be looked at, and the answers for the scorer."""
        answers = self._host.run_all(jobs)
        return self._host.stats(), answers


class ScorerActor:
    """A FitnessScorer in a process of its own."""

    def __init__(self, tasks: tuple[Task, ...], path: list[str]) -> None:
        _find_modules(path)
        self._scorer = FitnessScorer(tasks)

    def hello(self) -> Hello:
        return Hello(os.getpid(), _node())

    def score(
        self, jobs: tuple[Job, ...], places: tuple[int, ...], answers: tuple[HostResult, ...]
    ) -> tuple[JobResult, ...]:
        """Of each job, whose answer is at its place among ``answers``."""
        each = zip(jobs, places, strict=True)
        return tuple(self._scorer.score(job, answers[place]) for job, place in each)


def start_host(spec: Any, name: str, place: str, needs: HostNeeds) -> Any:
    """A HostActor of ``spec`` (a reference) on the node ``place``, or wherever there is room."""
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, **_ONCE}
    if needs.memory:
        options["memory"] = needs.memory
    if place != ANYWHERE:
        options["scheduling_strategy"] = _affinity(place)
    elif needs.labels:
        options["label_selector"] = dict(needs.labels)
    return ray.remote(HostActor).options(**options).remote(spec, name, sys.path)


def start_scorer(tasks: Any) -> Any:
    """A ScorerActor of ``tasks`` (a reference): on this node, which the run can't outlive anyway."""
    options = {"num_cpus": 0, "scheduling_strategy": _affinity(_node()), **_ONCE}
    return ray.remote(ScorerActor).options(**options).remote(tasks, sys.path)


def ask_host(actor: Any, jobs: tuple[Job, ...]) -> tuple[Any, Any]:
    """References to the note and to the answers, which go to the scorer without passing here."""
    note, answers = actor.run.options(num_returns=2).remote(jobs)
    return note, answers


def wait_for(references: list[Any], timeout_s: float) -> list[Any]:
    """Those that are there as soon as one is, or none when the time is up."""
    try:
        ready, rest = ray.wait(references, num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
    except SystemError as error:
        # What a signal's handler raises in there comes out as the cause of one of these.
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
    return ready


def read_nodes() -> tuple[ClusterNode, ...]:
    """The nodes that live, as the cluster knows them."""
    from ray._private.state import state  # Ray shows what is draining nowhere else

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
    """Why an actor died, in one line: its own error, or Ray's account of its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if isinstance(error, OutOfMemoryError):
        return f"killed by Ray because its node ran out of memory ({lines[0] if lines else last})"
    if "Worker exit type: SYSTEM_ERROR" in last:
        return "its process was killed (the system does that when memory runs out) or crashed"
    return re.sub(r"\x1b\[\d*m", "", last)


def died_with_node(error: RayError) -> bool:
    """Whether Ray says that the actor died, or could not start, because its node is gone."""
    if isinstance(error, ActorUnschedulableError):
        return True
    return "its node has died" in str(error) or "node was terminated" in str(error)


def _find_modules(path: list[str]) -> None:
    """Users' functions are found by name where the coordinator finds them."""
    sys.path.extend(p for p in path if p not in sys.path)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _affinity(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
