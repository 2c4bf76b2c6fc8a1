"""Search: one algorithm, one budget, generation after generation."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import pstdev

from cluster.jobs import JobResult, Timing
from evo.algorithms import Algorithm, Candidate, Scored
from evo.algorithms.protocol import Contest, SteadyAlgorithm, contest_of
from evo.config.schema import BudgetConfig
from evo.errors import EvoError
from evo.lineage.storage.writer import LineageWriter
from evo.search.evaluator import Evaluator
from evo.search.racing import Race, is_partial

DEV = "dev"
IDLE_ROUNDS = 100  # asks in a row with nothing new: the algorithm has run dry
IDLE_ASKS = 300  # the same of a steady state, whose asks are for one individual


@dataclass(frozen=True, slots=True)
class Generation:
    """What a finished generation leaves behind. Fitness is on dev; ``best`` is the best so far.

    ``mean`` and ``spread`` (the standard deviation) are of the population, without those that failed.
    ``seconds`` are the search's when the last result came that counted: a replay gives the same.
    """

    number: int
    best: Scored
    mean: float
    spread: float
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

    Without ``in_flight`` it goes by generations: order of completion never matters, evaluations are
    recorded, and told, in the order asked. With it, that many are always asked, and each is recorded
    and told as it ends: what is asked next depends on the order recorded and on nothing else.
    With ``race`` the candidates of each generation but the first race each other.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        evaluator: Evaluator,
        budget: BudgetConfig,
        lineage: LineageWriter,
        observe: Callable[[Progress], None] | None = None,
        in_flight: int | None = None,
        race: Race | None = None,
    ) -> None:
        self._algorithm = algorithm
        self._evaluator = evaluator
        self._budget = budget
        self._lineage = lineage
        self._observe = observe
        self._in_flight = in_flight
        self._race = race
        self._dropped: set[str] = (
            set()
        )  # before they met all examples: their fitness is an estimate
        self._improved_in = 0
        self._busy = [0.0, 0.0, 0.0]
        self._unfinished: list[Scored] = []  # evaluated since the last finished generation
        self._round: list[Candidate] = []  # asked and not told yet, of generations
        self._pending: dict[str, list[Candidate]] = {}  # in a steady state, by id: being evaluated,
        self._ready: deque[Scored] = deque()  # and evaluated, but not told yet
        self._first_error = ""  # of the running generation
        self.scored: dict[str, Scored] = {}
        self.best: Scored | None = None
        self.failed = 0  # of the individuals scored
        self.examples = 0  # of dev that they were scored on
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
        self._evaluator.clock.start()
        if self._in_flight is None:
            yield from self._by_generations()
        else:
            yield from self._steadily(self._in_flight)
        if self._unfinished:  # the budget ended within a generation: what was evaluated counts
            yield self._finish(self._algorithm.generation + 1, self._unfinished)

    def leave(self) -> None:
        """Ask for nothing more. Cancels what no host has begun, and records what is being evaluated."""
        for result in self._evaluator.drain():
            self._complete(result)

    def ranked(self) -> list[Scored]:
        """All that were scored on all examples and did not fail, best first; ties by order of trial."""
        scored = (s for name, s in self.scored.items() if name not in self._dropped)
        alive = [s for s in scored if math.isfinite(s.fitness)]
        return sorted(alive, key=lambda s: -s.fitness)

    def _by_generations(self) -> Iterator[Generation]:
        idle = 0
        while not self._is_over():
            # A search that was interrupted in a round goes on with it.
            asked = self._round = self._round or self._algorithm.ask()
            new = list({c.id: c for c in asked if c.id not in self.scored}.values())
            idle = 0 if new else idle + 1
            allowed = new[: self._left()]
            number = self._algorithm.generation + 1
            if self._race is None or number == 0:
                self._evaluate(allowed, number)
            else:
                self._let_race(self._race, allowed, asked, number)
            if len(allowed) < len(new):  # the budget ends within this round: nothing more is told
                self.reason = "evaluations"
                break
            self._round = []
            self._algorithm.tell([Scored(c, self.scored[c.id].fitness) for c in asked])
            if self._algorithm.generation == number:
                self._lineage.population(self._algorithm.population, number)
                yield self._finish(number, self._algorithm.population)
            if idle >= IDLE_ROUNDS:
                self.reason = "no new candidates"
                break

    def _steadily(self, in_flight: int) -> Iterator[Generation]:
        algorithm = self._algorithm
        if not isinstance(algorithm, SteadyAlgorithm):
            raise EvoError(f"loop: {type(algorithm).__name__} does not take steady_state")
        idle = 0
        while True:
            while self._ready:
                number = algorithm.generation + 1
                algorithm.tell_one(self._ready.popleft())
                if algorithm.generation == number:
                    self._lineage.population(algorithm.population, number)
                    yield self._finish(number, algorithm.population)
            if idle >= IDLE_ASKS and not self.reason:
                self.reason = "no new candidates"
            if not self.reason and not self._is_over() and len(self._pending) < in_flight:
                left = self._left()
                full = left is not None and len(self._pending) >= left
                candidate = None if full else algorithm.ask_one()
                if candidate is not None:
                    known = self.scored.get(candidate.id)
                    idle = idle + 1 if known or candidate.id in self._pending else 0
                    if known:
                        self._ready.append(Scored(candidate, known.fitness))
                    elif candidate.id in self._pending:
                        self._pending[candidate.id].append(candidate)
                    else:
                        self._pending[candidate.id] = [candidate]
                        self._evaluator.submit(candidate.recipe, DEV)
                    continue
            if not self._pending:
                self.reason = self.reason or "no new candidates"
                return
            scored = self._complete(self._evaluator.wait())
            if not self.reason:  # what ends after the budget did is kept, and decides nothing
                self._ready += scored
            number = algorithm.generation + 1
            self._show(number, [s.fitness for s in self._unfinished], self.evaluations)
            if not self._pending:
                self._check_alive(number)

    def _complete(self, result: JobResult) -> list[Scored]:
        """Record one result of a steady state; what to tell the algorithm for it."""
        candidates = self._pending.pop(result.job.recipe.id, [])
        if not candidates:
            return []
        fitness = self._evaluator.measure(result).fitness
        self._record(candidates[0], result, fitness, self._algorithm.generation + 1)
        return [Scored(c, fitness) for c in candidates]

    def _evaluate(self, candidates: list[Candidate], generation: int) -> None:
        heard: list[float] = []

        def hear(result: JobResult) -> None:
            heard.append(self._evaluator.measure(result).fitness)
            self._show(generation, heard, self.evaluations + len(heard))

        results = self._evaluator.run([c.recipe for c in candidates], DEV, on_result=hear)
        for candidate, result in zip(candidates, results, strict=True):
            self._record(candidate, result, self._evaluator.measure(result).fitness, generation)
        self._check_alive(generation)

    def _let_race(
        self, race: Race, candidates: list[Candidate], asked: list[Candidate], generation: int
    ) -> None:
        heard: list[float] = []

        def hear(result: JobResult, fitness: float) -> None:
            heard.append(fitness)
            self._show(generation, heard, self.evaluations + len(heard))

        contest = contest_of(self._algorithm, len(asked))
        again = tuple(c.id for c in asked if c.id in self.scored)
        rivals = tuple(dict.fromkeys((*contest.rivals, *again)))
        best = self.best.fitness if self.best else math.inf
        results = race.run(candidates, Contest(contest.keeps, rivals), best, hear)
        for candidate, (result, fitness) in zip(candidates, results, strict=True):
            if is_partial(result):
                self._dropped.add(candidate.id)
            self._record(candidate, result, fitness, generation)
        self._check_alive(generation)

    def _check_alive(self, generation: int) -> None:
        """Where nothing of the first two generations can be built or run, nothing later will."""
        fitness = [s.fitness for s in self._unfinished]
        if generation <= 1 and fitness and not any(math.isfinite(f) for f in fitness):
            self._lineage.commit(generation)
            who = "founder" if generation == 0 else "child of the founders"
            raise EvoError(f"every {who} failed; the first says: {self._first_error}")

    def _show(self, generation: int, heard: Sequence[float], evaluations: int) -> None:
        if self._observe is None:
            return
        fitness = [f for f in heard if math.isfinite(f)]
        best = self.best.fitness if self.best else -math.inf
        unrecorded = evaluations - self.evaluations
        self._observe(
            Progress(
                generation,
                evaluations,
                max([*fitness, best]),
                math.fsum(fitness) / len(fitness) if fitness else math.nan,
                self.failed + sum(not math.isfinite(f) for f in heard[:unrecorded]),
                self._evaluator.clock(),
            )
        )

    def _record(
        self, candidate: Candidate, result: JobResult, fitness: float, generation: int
    ) -> None:
        self._lineage.individual(candidate, generation)
        self._lineage.evaluation(result, generation, fitness)
        if result.job.attempt > 1:
            detail = f"{candidate.id[:12]} took {result.job.attempt} attempts"
            self._lineage.event("retry", detail, generation)
        if not result.ok:
            self._first_error = self._first_error or result.error
            self._lineage.event("failed", f"{candidate.id[:12]}: {result.error}", generation)
        for event in self._evaluator.events():
            self._lineage.event(event.kind, event.detail, generation, news=True)
        self.examples += sum(found.examples for found in result.results)
        timing = result.timing
        for i, seconds in enumerate((timing.build_s, timing.model_s, timing.score_s)):
            self._busy[i] += seconds
        scored = Scored(candidate, fitness)
        self.scored[candidate.id] = scored
        self._unfinished.append(scored)
        self.failed += not math.isfinite(scored.fitness)
        better = self.best is None or scored.fitness > self.best.fitness
        if math.isfinite(scored.fitness) and better:
            self.best, self._improved_in = scored, generation

    def _finish(self, number: int, members: Sequence[Scored]) -> Generation:
        self._lineage.commit(number)
        finite = [s.fitness for s in members if math.isfinite(s.fitness)]
        self._unfinished, self._first_error = [], ""
        self.seconds = self._evaluator.clock()
        mean = math.fsum(finite) / len(finite) if finite else math.nan
        spread = pstdev(finite, mean) if finite else math.nan
        if self.best is None:
            raise RuntimeError("a generation finished before any individual was scored")
        at_s = self._evaluator.at_s
        return Generation(number, self.best, mean, spread, self.evaluations, self.failed, at_s)

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
            "seconds": budget.seconds is not None and self._evaluator.at_s >= budget.seconds,
            "target": budget.target is not None and best >= budget.target,
            "patience": budget.patience is not None
            and number - self._improved_in >= budget.patience,
        }
        self.reason = next((name for name, ended in checks.items() if ended), "")
        return bool(self.reason)
