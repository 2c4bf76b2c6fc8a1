"""What goes to a pool and what comes back: small, frozen, picklable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fitness.engines import EngineSpec as EngineSpec
from fitness.requests import Output, Request
from fitness.splits import Split
from fitness.tasks.task import Part, Task
from operators.recipe import Recipe

if TYPE_CHECKING:  # it imports torch, which who reads a journal does without
    from cluster.founders.checkpoints import FounderFiles

Kind: TypeAlias = Literal["score", "answers", "influence"]


@dataclass(frozen=True, slots=True)
class Query:
    """One thing to find out about an individual on a task's split, or on a part of it.

    Its scores, its answers, or the influence of each of its layers.
    """

    task: str
    split: Split
    kind: Kind = "score"
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Build one individual and answer all ``asks`` of it.

    The pool sets ``key`` (0, 1, 2, ... in the order submitted) and ``attempt``.
    """

    recipe: Recipe
    queries: tuple[Query, ...]
    key: int = -1
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent on one job: building weights, running the model, scoring its outputs."""

    build_s: float = 0.0
    model_s: float = 0.0
    score_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.build_s + self.model_s + self.score_s


@dataclass(frozen=True, slots=True)
class Execution:
    """What a host ran: the digest of what it built ("" if that failed; see ``Builder.digest``), and how
    many tokens each ask took, read and generated, without padding (empty where the engine counts none,
    or the asks were not all answered).
    """

    weights: str = ""
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostResult:
    """What a host gives a scorer: one list of outputs for each query, or an error."""

    outputs: tuple[tuple[Output, ...], ...]
    host: str
    timing: Timing
    error: str = ""
    execution: Execution = Execution()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Per-example results of one query: ``values`` for scores, ``answers`` for answers.

    ``positions`` are those of a candidate's examples that was dropped before it met them all.
    """

    query: Query
    values: Sequence[float]
    answers: tuple[str | int | None, ...]
    mean: float
    standard_error: float
    positions: tuple[int, ...] | None = None

    @property
    def examples(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job's end, exactly one for each job submitted: results for every query, or ``error``.

    ``at_s`` is the coordinator's to set: when the result came, by the run's clock.
    """

    job: Job
    results: tuple[QueryResult, ...]
    host: str
    timing: Timing
    error: str = ""
    at_s: float = 0.0
    execution: Execution = Execution()

    @property
    def ok(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class HostSpec:
    """All that a host needs: founders by path, the engine, and the requests of every query.

    ``memory_gib`` is what a host in a process of its own may allocate beside the founders' files.
    """

    base: "FounderFiles"
    founders: "tuple[FounderFiles, ...]"
    engine: EngineSpec
    requests: Mapping[Query, tuple[Request, ...]]
    memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A whole pool: its hosts' spec, and the tasks that its scorers score."""

    host: HostSpec
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class HostStats:
    """One host's account: peak resident memory in bytes, jobs done and the seconds they took.

    ``useful`` is the number of jobs that keeps it fully used: as many as run in one model batch, and those
    that are built meanwhile. ``degraded`` says why it works more slowly than it could, a line for each fast
    way that it has disabled after an error.
    """

    host: str
    peak_bytes: int
    jobs: int
    busy_s: float = 0.0
    useful: int = 1
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """Something that happened to the pool itself, for the lineage: ``kind`` is a word or two.

    Such as ``host lost``, ``host joined``, ``deadline``, ``degraded``.
    """

    kind: str
    detail: str
