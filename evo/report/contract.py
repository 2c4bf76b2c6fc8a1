"""What a report says, as plain data: every part is JSON-able, and null stands for what is not known."""

from typing import Literal, TypedDict

State = Literal["starting", "running", "stopped", "finished"]


class TaskFacts(TypedDict):
    """``weight`` is in the fitness, negative where a lower score is better."""

    name: str
    metric: str
    weight: float


class RunFacts(TypedDict):
    """``evaluations`` are individuals of the search that were scored on dev; ``splits`` are in examples."""

    name: str
    run_dir: str
    state: State
    algorithm: str
    seed: int | None
    started: str | None
    updated: str | None
    generations: int
    evaluations: int
    budget: int | None
    failed: int
    tasks: list[TaskFacts]
    splits: dict[str, int | None]


class Named(TypedDict):
    id: str
    name: str


class Described(Named):
    description: str


class Headline(TypedDict):
    """Winner against best founder, on the best split there is; the interval is of their difference."""

    split: str
    winner: Described
    winner_score: float
    winner_se: float
    founder: Named
    founder_score: float
    founder_se: float
    difference: float
    low: float | None
    high: float | None
    confidence: float
    examples: int
    note: str


class SplitScore(TypedDict):
    score: float | None
    se: float | None


class ScoreRow(TypedDict):
    """One model of the table of results. ``tasks`` is by task and then by split."""

    name: str
    kind: str
    id: str | None
    dev: float | None
    select: float | None
    test: float | None
    test_se: float | None
    tasks: dict[str, dict[str, SplitScore]]


class Curve(TypedDict):
    evaluations: list[int]
    best: list[float | None]


class BaselineLine(TypedDict):
    """A baseline on dev; ``curve`` is its best so far, where it was searched for."""

    name: str
    kind: str
    value: float
    curve: Curve | None


class FitnessFacts(TypedDict):
    """A point for each generation (thinned), by evaluations and by seconds of the search."""

    generation: list[int]
    evaluations: list[int]
    seconds: list[float]
    best: list[float | None]
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]
    spread: str
    baselines: list[BaselineLine]


class FamilyNode(TypedDict):
    """``lane`` is where it stands across its generation, 0 to 1; ``parents`` are as recorded."""

    id: str
    name: str
    generation: int
    lane: float
    operator: str
    description: str
    fitness: float | None
    standard_error: float | None
    parents: list[str]
    tasks: dict[str, float | None]


class FamilyFacts(TypedDict):
    nodes: list[FamilyNode]
    edges: list[tuple[int, int]]  # (parent, child), as positions in nodes
    left_out: int


class ShareFacts(TypedDict):
    """(groups, founders): signed weights, and each one's part of the sum of their sizes."""

    groups: list[str]
    founders: list[str]
    share: list[list[float]]
    weight: list[list[float]]
    note: str


class PathStep(TypedDict):
    model: int
    layer: int
    scale: float


class PathFacts(TypedDict):
    models: list[Named]
    layers: int | None
    embed: int
    head: int
    steps: list[PathStep]
    notes: list[str]


class ChangedExample(TypedDict):
    task: str
    example: int
    change: Literal["fixed", "broken"]
    was: str | None
    now: str | None
    was_value: float
    now_value: float
    prompt: str | None
    expected: str | None


class ChangedFacts(TypedDict):
    against: Named
    split: str
    fixed: int
    broken: int
    both_right: int
    both_wrong: int
    left_out: int
    examples: list[ChangedExample]


class DiversityFacts(TypedDict):
    """Of the populations at generations' ends.

    ``disagreement`` is the mean over dev examples of the chance that two different members score
    otherwise (null with one member); ``distinct`` the share of members whose values are nobody else's.
    """

    generation: list[int]
    disagreement: list[float | None]
    distinct: list[float]


class OperatorFacts(TypedDict):
    """``survived``: in the population at the end of their generation. ``survival`` is of those whose
    generation has such an end: not of one within which the budget ended. ``improved``: beat all parents.
    """

    operator: str
    children: int
    failed: int
    survived: int
    survival: float
    improved: int
    best: float | None


class HostFacts(TypedDict):
    host: str
    evaluations: int
    seconds: float
    tokens: int | None
    failed: int


class SplitCost(TypedDict):
    split: str
    evaluations: int
    seconds: float
    examples: int


class CostFacts(TypedDict):
    """Of everything in the run's lineage: the search, the finals and the static baselines.

    What random search cost as a baseline is in ``final_seconds`` alone: it has a lineage of its own.
    """

    evaluations: int
    examples: int
    tokens: int | None
    search_seconds: float
    busy_seconds: float
    build_seconds: float
    model_seconds: float
    score_seconds: float
    startup_seconds: float | None
    final_seconds: float | None
    peak_memory_bytes: int | None
    hosts: list[HostFacts]
    splits: list[SplitCost]


class EventRow(TypedDict):
    time: str
    generation: int
    kind: str
    detail: str


class EventFacts(TypedDict):
    rows: list[EventRow]
    left_out: int
    counts: dict[str, int]


class Facts(TypedDict):
    """Everything. ``problem`` says in words what could not be read."""

    run: RunFacts
    headline: Headline | None
    scores: list[ScoreRow]
    fitness: FitnessFacts
    family: FamilyFacts
    shares: ShareFacts | None
    path: PathFacts | None
    changed: ChangedFacts | None
    diversity: DiversityFacts | None
    operators: list[OperatorFacts]
    cost: CostFacts
    events: EventFacts
    problem: str | None
