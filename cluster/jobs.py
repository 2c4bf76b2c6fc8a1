"""What goes to a pool and what comes back: small, frozen, picklable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fitness.engines import EngineSpec as EngineSpec
from fitness.requests import Output, Request
from fitness.splits import Split
from fitness.tasks.task import Part, Task
from operators.recipe import Recipe

if TYPE_CHECKING:  # its module imports torch, which readers of a journal do not need
    from cluster.founders.checkpoints import FounderFiles

Kind: TypeAlias = Literal["score", "answers", "influence"]


@dataclass(frozen=True, slots=True)
class Query:
    """What to measure of an individual on a task's split, or on a ``part`` of it.

    Its scores, its answers, or the influence of each of its layers.
    """

    task: str
    split: Split
    kind: Kind = "score"
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Build one individual and answer all ``queries`` about it.

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
    """What a host ran.

    ``weights`` is the digest of what it built, "" if that failed; see ``Builder.digest``. ``tokens`` counts, for
    each query, the tokens read and generated without padding; empty if the engine does not count them or a
    query has no answer.
    """

    weights: str = ""
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostResult:
    """A host's answers for the scorer: a tuple of outputs for each query, or an error."""

    outputs: tuple[tuple[Output, ...], ...]
    host: str
    timing: Timing
    error: str = ""
    execution: Execution = Execution()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Per-example results of one query: ``values`` for scores, ``answers`` for answers.

    ``positions`` are those of the examples that ran, if racing stopped the candidate before the last.
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
    """The one result of a submitted job: results for every query, or ``error``.

    The coordinator sets ``at_s``: seconds since the start of the run when the result arrived.
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
    """What a host needs: founders by path, the engine, and the requests of every query.

    ``memory_gib`` limits what a host in its own process may allocate beside the founders' files.
    """

    base: "FounderFiles"
    founders: "tuple[FounderFiles, ...]"
    engine: EngineSpec
    requests: Mapping[Query, tuple[Request, ...]]
    memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool needs: its hosts' spec, and the tasks that its scorer scores."""

    host: HostSpec
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class HostStats:
    """Figures of one host: peak resident memory in bytes, jobs done, and the seconds they took.

    ``useful`` is the number of jobs that keep it busy: those of a model batch, and those built meanwhile.
    ``degraded`` has a line for each optimisation that the host disabled after an error.
    """

    host: str
    peak_bytes: int
    jobs: int
    busy_s: float = 0.0
    useful: int = 1
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """An event of the pool, for the lineage.

    ``kind`` is one or two words, such as ``host lost``, ``node joined``, ``deadline``, ``degraded``.
    """

    kind: str
    detail: str
