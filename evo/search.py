"""Search: one algorithm, one budget, generation after generation."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

from cluster.jobs import JobResult, Timing
from evo.algorithms import Algorithm, Candidate, Scored
from evo.config import BudgetConfig
from evo.errors import UserError
from evo.evaluation import Evaluator
from evo.lineage.writer import LineageWriter

DEV = "dev"
IDLE_ROUNDS = 100  # asks in a row with nothing new: the algorithm has run dry


@dataclass(frozen=True, slots=True)
class Generation:
    """What a finished generation leaves behind. Fitness is on dev; ``best`` is the best so far."""

    number: int
    best: Scored
    mean: float
    evaluations: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands, after each evaluation. ``mean`` is of the running generation."""

    generation: int
    evaluations: int
    best: float
    mean: float
    failed: int
    seconds: float


class Search:
    """Runs an algorithm until its budget ends; records everything in the lineage.

    Order of completion never matters: evaluations are recorded, and told, in the order asked.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        evaluator: Evaluator,
        budget: BudgetConfig,
        lineage: LineageWriter,
        observe: Callable[[Progress], None] | None = None,
    ) -> None:
        self._algorithm = algorithm
        self._evaluator = evaluator
        self._budget = budget
        self._lineage = lineage
        self._observe = observe
        self._started = perf_counter()
        self._improved_in = 0
        self._busy = [0.0, 0.0, 0.0]
        self._unfinished: list[Scored] = []  # evaluated since the last finished generation
        self.scored: dict[str, Scored] = {}
        self.best: Scored | None = None
        self.failed = 0  # of the individuals scored
        self.reason = ""
        self.seconds = 0.0

    @property
    def evaluations(self) -> int:
        """Distinct individuals scored on dev."""
        return len(self.scored)

    @property
    def busy(self) -> Timing:
        """Seconds that all hosts and scorers together spent working."""
        return Timing(*self._busy)

    def __iter__(self) -> Iterator[Generation]:
        self._started = perf_counter()
        idle = 0
        while not self._is_over():
            asked = self._algorithm.ask()
            new = list({c.id: c for c in asked if c.id not in self.scored}.values())
            idle = 0 if new else idle + 1
            allowed = new[: self._left()]
            number = self._algorithm.generation + 1
            self._evaluate(allowed, number)
            if len(allowed) < len(new):  # the budget ends within this round: nothing more is told
                self.reason = "evaluations"
                break
            self._algorithm.tell([Scored(c, self.scored[c.id].fitness) for c in asked])
            if self._algorithm.generation == number:
                self._lineage.population(self._algorithm.population, number)
                yield self._finish(number, self._algorithm.population)
            if idle >= IDLE_ROUNDS:
                self.reason = "no new candidates"
                break
        if self._unfinished:  # the budget ended within a generation: what was evaluated counts
            yield self._finish(self._algorithm.generation + 1, list(self._unfinished))

    def ranked(self) -> list[Scored]:
        """All individuals that were scored and did not fail, best first; ties by order of trial."""
        alive = [s for s in self.scored.values() if math.isfinite(s.fitness)]
        return sorted(alive, key=lambda s: -s.fitness)

    def _evaluate(self, candidates: list[Candidate], generation: int) -> None:
        heard: list[float] = []

        def hear(result: JobResult) -> None:
            heard.append(self._evaluator.measure(result).fitness)
            if self._observe is not None:
                fitness = [f for f in heard if math.isfinite(f)]
                self._observe(
                    Progress(
                        generation,
                        self.evaluations + len(heard),
                        max([*fitness, self.best.fitness if self.best else -math.inf]),
                        math.fsum(fitness) / len(fitness) if fitness else math.nan,
                        self.failed + len(heard) - len(fitness),
                        perf_counter() - self._started,
                    )
                )

        results = self._evaluator.run([c.recipe for c in candidates], DEV, on_result=hear)
        for candidate, result in zip(candidates, results, strict=True):
            self._record(candidate, result, generation)
        # Where nothing of the first two generations can be built or run, nothing later will.
        if generation <= 1 and results and not any(r.ok for r in results):
            self._lineage.commit(generation)
            who = "founder" if generation == 0 else "child of the founders"
            raise UserError(f"every {who} failed; the first says: {results[0].error}")

    def _record(self, candidate: Candidate, result: JobResult, generation: int) -> None:
        self._lineage.individual(candidate, generation)
        self._lineage.evaluation(result, generation)
        if result.job.attempt > 1:
            detail = f"{candidate.id[:12]} took {result.job.attempt} attempts"
            self._lineage.event("retry", detail, generation)
        if not result.ok:
            self._lineage.event("failed", f"{candidate.id[:12]}: {result.error}", generation)
        timing = result.timing
        for i, seconds in enumerate((timing.build_s, timing.model_s, timing.score_s)):
            self._busy[i] += seconds
        scored = Scored(candidate, self._evaluator.measure(result).fitness)
        self.scored[candidate.id] = scored
        self._unfinished.append(scored)
        self.failed += not math.isfinite(scored.fitness)
        better = self.best is None or scored.fitness > self.best.fitness
        if math.isfinite(scored.fitness) and better:
            self.best, self._improved_in = scored, generation

    def _finish(self, number: int, members: "list[Scored] | tuple[Scored, ...]") -> Generation:
        self._lineage.commit(number)
        self._unfinished.clear()
        self.seconds = perf_counter() - self._started
        finite = [s.fitness for s in members if math.isfinite(s.fitness)]
        mean = math.fsum(finite) / len(finite) if finite else math.nan
        if self.best is None:
            raise RuntimeError("a generation finished before any individual was scored")
        return Generation(number, self.best, mean, self.evaluations, self.failed, self.seconds)

    def _left(self) -> int | None:
        limit = self._budget.evaluations
        return None if limit is None else limit - self.evaluations

    def _is_over(self) -> bool:
        budget, number = self._budget, self._algorithm.generation
        best = self.best.fitness if self.best else -math.inf
        checks = {
            "evaluations": budget.evaluations is not None
            and self.evaluations >= budget.evaluations,
            "generations": budget.generations is not None and number >= budget.generations,
            "seconds": budget.seconds is not None
            and perf_counter() - self._started >= budget.seconds,
            "target": budget.target is not None and best >= budget.target,
            "patience": budget.patience is not None
            and number - self._improved_in >= budget.patience,
        }
        self.reason = next((name for name, ended in checks.items() if ended), "")
        return bool(self.reason)
