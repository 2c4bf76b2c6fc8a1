"""Search: runs an algorithm until the budget is spent, by generations or in a steady state."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import pstdev

from cluster.jobs import JobResult, Timing
from evo.algorithms import Algorithm, Candidate, Scored
from evo.algorithms.protocol import SteadyAlgorithm, contest_of
from evo.config.schema import BudgetConfig
from evo.errors import EvoError
from evo.lineage.storage.writer import LineageWriter
from evo.search.budget import spent
from evo.search.evaluator import Evaluator
from evo.search.progress import Generation, Progress
from evo.search.rounds import Round, evaluate_round
from fitness.splits import DEV

IDLE_ROUNDS = 100  # rounds in a row without a new candidate, after which a search ends
IDLE_ASKS = 300  # the same in a steady state, which asks for one candidate at a time


class Search:
    """An iterator over the generations of a search; everything is recorded in the lineage.

    A generational search (``in_flight`` is None) passes evaluations to the algorithm in the order in which
    it asked for them, whatever the order of completion. A steady-state search keeps ``in_flight``
    evaluations running and passes each on as it completes; what the algorithm asks for next depends on the
    recorded order alone.

    A search that was left by ``break`` or an exception continues when it is iterated again.

    Args:
        algorithm: proposes the candidates.
        evaluator: evaluates them. If it has rungs, candidates of a round race.
        budget: when the search ends.
        lineage: records individuals, evaluations, populations and events.
        observe: called after each evaluation.
        in_flight: the number of evaluations that run at a time in a steady state.
        races: False: evaluate all candidates on all examples, whatever the evaluator has.
        stops: numbers of evaluations at which earlier budgets of an extended run ended; there, what was
            evaluated in an unfinished generation is committed, as it was the first time.

    Attributes:
        scored: every individual with its fitness, by id, in the order recorded.
        best: the best individual so far.
        failed: the number of individuals that failed.
        examples: the number of dev examples scored, over all individuals.
        reason: what ended the search: a key of the budget, or "no new candidates"; "" before that.
        seconds: of the search, up to the last finished generation.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        evaluator: Evaluator,
        budget: BudgetConfig,
        lineage: LineageWriter,
        observe: Callable[[Progress], None] | None = None,
        in_flight: int | None = None,
        races: bool = True,
        stops: Sequence[int] = (),
    ) -> None:
        self._algorithm = algorithm
        self._evaluator = evaluator
        self._budget = budget
        self._lineage = lineage
        self._observe = observe
        self._in_flight = in_flight
        self._races = races
        self._stops = deque(stops)
        self._estimated: set[str] = set()  # ids of those with an estimated fitness
        self._improved_in = 0
        self._busy = [0.0, 0.0, 0.0]
        self._unfinished: list[Scored] = []  # recorded since the last finished generation
        self._round: list[Candidate] = []  # generational: asked for, not told yet
        self._pending: dict[str, list[Candidate]] = {}  # steady state: in evaluation, by id
        self._ready: deque[Scored] = deque()  # steady state: recorded, not told yet
        self._first_error = ""  # in the current generation
        self.scored: dict[str, Scored] = {}
        self.best: Scored | None = None
        self.failed = 0
        self.examples = 0
        self.reason = ""
        self.seconds = 0.0

    @property
    def evaluations(self) -> int:
        """The number of distinct individuals evaluated on dev."""
        return len(self.scored)

    @property
    def busy(self) -> Timing:
        """The seconds that hosts and scorers spent on this search's jobs, summed."""
        return Timing(*self._busy)

    def __iter__(self) -> Iterator[Generation]:
        self._evaluator.clock.start()
        if self._in_flight is None:
            yield from self._by_generations()
        else:
            yield from self._steadily(self._in_flight)
        if self._unfinished:  # the budget ended within a generation; its evaluations count
            yield self._finish(self._algorithm.generation + 1, self._unfinished)

    def leave(self) -> None:
        """Cancel the jobs that no host has started, and record the results of the others."""
        for result in self._evaluator.drain():
            self._complete(result)

    def exact(self) -> list[Scored]:
        """Return the individuals whose fitness is no estimate, in the order recorded."""
        return [s for id_, s in self.scored.items() if id_ not in self._estimated]

    def _by_generations(self) -> Iterator[Generation]:
        idle = 0
        while not self._is_over():
            self._commit_at_stop()
            asked = self._round = self._round or self._algorithm.ask()
            new = list({c.id: c for c in asked if c.id not in self.scored}.values())
            idle = 0 if new else idle + 1
            left = self._stops[0] - self.evaluations if self._stops else self._left()
            allowed = new[:left]
            number = self._algorithm.generation + 1
            self._evaluate(allowed, asked, number)
            if len(allowed) < len(new):  # a budget ends within this round
                continue
            self._round = []
            self._algorithm.tell([Scored(c, self.scored[c.id].fitness) for c in asked])
            if self._algorithm.generation == number:
                self._lineage.population(self._algorithm.population, number)
                yield self._finish(number, self._algorithm.population)
            if idle >= IDLE_ROUNDS:
                self.reason = "no new candidates"
                break

    def _evaluate(self, new: list[Candidate], asked: list[Candidate], generation: int) -> None:
        """Evaluate and record the candidates of a round that are new."""
        completed: list[float] = []

        def on_result(result: JobResult, fitness: float) -> None:
            completed.append(fitness)
            self._report(generation, completed, len(completed))

        known = [c for c in asked if c.id in self.scored]
        contest = contest_of(self._algorithm, asked, known) if self._races else None
        best = self.best.fitness if self.best else math.inf
        evaluated = evaluate_round(self._evaluator, Round(tuple(new), contest, best), on_result)
        for candidate, found in zip(new, evaluated, strict=True):
            if not found.exact:
                self._estimated.add(candidate.id)
            self._record(candidate, found.result, found.fitness, generation)
        self._check_alive(generation)

    def _steadily(self, in_flight: int) -> Iterator[Generation]:
        algorithm = self._algorithm
        if not isinstance(algorithm, SteadyAlgorithm):
            raise EvoError(
                f"loop: {type(algorithm).__name__} can't run in a steady state; set loop: generational"
            )
        idle = 0
        while True:
            while self._ready:
                number = algorithm.generation + 1
                algorithm.tell_one(self._ready.popleft())
                if algorithm.generation == number:
                    self._lineage.population(algorithm.population, number)
                    yield self._finish(number, algorithm.population)
            self._commit_at_stop()
            if idle >= IDLE_ASKS and not self.reason:
                self.reason = "no new candidates"
            may_ask = not self.reason and not self._is_over() and len(self._pending) < in_flight
            candidate = self._ask_one(algorithm) if may_ask else None
            if candidate is not None:
                idle = 0 if self._submit(candidate) else idle + 1
                continue
            if not self._pending:
                self.reason = self.reason or "no new candidates"
                return
            scored = self._complete(self._evaluator.wait())
            if not self.reason:  # a result after the budget's end is recorded, but not told
                self._ready += scored
            number = algorithm.generation + 1
            self._report(number, [s.fitness for s in self._unfinished], 0)
            if not self._pending:
                self._check_alive(number)

    def _ask_one(self, algorithm: SteadyAlgorithm) -> Candidate | None:
        left = self._left()
        return None if left is not None and len(self._pending) >= left else algorithm.ask_one()

    def _submit(self, candidate: Candidate) -> bool:
        """Submit a candidate of a steady state; return whether it is new."""
        known = self.scored.get(candidate.id)
        if known is not None:
            self._ready.append(Scored(candidate, known.fitness))
        elif candidate.id in self._pending:
            self._pending[candidate.id].append(candidate)
        else:
            self._pending[candidate.id] = [candidate]
            self._evaluator.submit(candidate.recipe, DEV)
            return True
        return False

    def _complete(self, result: JobResult) -> list[Scored]:
        """Record a result of a steady state; return the evaluations to tell the algorithm."""
        candidates = self._pending.pop(result.job.recipe.id, [])
        if not candidates:
            return []
        fitness = self._evaluator.objective.fitness(result)
        self._record(candidates[0], result, fitness, self._algorithm.generation + 1)
        return [Scored(c, fitness) for c in candidates]

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
        if not math.isfinite(fitness):
            self.failed += 1
        elif self.best is None or fitness > self.best.fitness:
            self.best, self._improved_in = scored, generation

    def _check_alive(self, generation: int) -> None:
        """Check that not all founders, and not all of the first children, failed.

        Raises:
            EvoError: they did; later individuals would fail, too.
        """
        fitness = [s.fitness for s in self._unfinished]
        if generation <= 1 and fitness and not any(map(math.isfinite, fitness)):
            self._lineage.commit()
            failed = "founder" if generation == 0 else "child of the founders"
            raise EvoError(f"every {failed} failed; the first error: {self._first_error}")

    def _report(self, generation: int, completed: Sequence[float], unrecorded: int) -> None:
        """Report the fitness of what has completed in this generation.

        The first ``unrecorded`` of them are not in ``scored`` and ``failed`` yet.
        """
        if self._observe is None:
            return
        finite = [f for f in completed if math.isfinite(f)]
        best = self.best.fitness if self.best else -math.inf
        self._observe(
            Progress(
                generation,
                self.evaluations + unrecorded,
                max([*finite, best]),
                math.fsum(finite) / len(finite) if finite else math.nan,
                self.failed + sum(not math.isfinite(f) for f in completed[:unrecorded]),
                self._evaluator.clock(),
            )
        )

    def _finish(self, number: int, members: Sequence[Scored]) -> Generation:
        """Commit a generation whose population is ``members``."""
        self._lineage.commit()
        finite = [s.fitness for s in members if math.isfinite(s.fitness)]
        self._unfinished, self._first_error = [], ""
        self.seconds = self._evaluator.clock()
        mean = math.fsum(finite) / len(finite) if finite else math.nan
        spread = pstdev(finite, mean) if finite else math.nan
        if self.best is None:
            raise RuntimeError("a generation finished before any individual was scored")
        at_s = self._evaluator.at_s
        return Generation(number, self.best, mean, spread, self.evaluations, self.failed, at_s)

    def _commit_at_stop(self) -> None:
        """Commit the evaluations of an unfinished generation where an earlier budget ended."""
        if self._stops and self.evaluations >= self._stops[0]:
            self._stops.popleft()
            if self._unfinished:
                self._lineage.commit()
                self._unfinished = []

    def _left(self) -> int | None:
        """The number of evaluations that the budget still allows; None without such a limit."""
        limit = self._budget.evaluations
        return None if limit is None else limit - self.evaluations

    def _is_over(self) -> bool:
        self.reason = spent(
            self._budget,
            evaluations=self.evaluations,
            generation=self._algorithm.generation,
            seconds=self._evaluator.at_s,
            best=self.best.fitness if self.best else -math.inf,
            improved_in=self._improved_in,
        )
        return bool(self.reason)
