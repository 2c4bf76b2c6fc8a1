"""Evaluator: recipes in, results out; each recipe is evaluated once on each split."""

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from sys import intern
from time import perf_counter

from cluster.jobs import Job, JobResult, Kind, PoolEvent, Query
from cluster.pool import Pool
from evo.algorithms.protocol import Candidate, Contest
from evo.errors import EvoError
from evo.lineage.storage.records import RACED, Key, Record, what_of
from evo.search.objective import Objective
from evo.search.racing import Estimate, race
from evo.search.recorded import RecordedResults
from evo.search.rungs import Rungs
from fitness.splits import DEV, Split
from operators.recipe import Recipe, describe


class RunClock:
    """Seconds that a run has searched: those before a resume included, pauses not."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._before_s = before_s
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock, if it does not run."""
        self._started = perf_counter() if self._started is None else self._started

    def __call__(self) -> float:
        return self._before_s + (0.0 if self._started is None else perf_counter() - self._started)


@dataclass(frozen=True, slots=True)
class Round:
    """Candidates to evaluate on dev, each once.

    Attributes:
        contest: whose fitness must be exact; None: that of all.
        best: the best fitness of the run so far; no estimate reaches it.
    """

    candidates: tuple[Candidate, ...]
    contest: Contest | None = None
    best: float = math.inf


class Evaluator:
    """Gets results from a pool, which may have other users, and keeps them.

    Args:
        pool: where jobs run.
        objective: the tasks, and what fitness is.
        past: what was recorded of a run that is resumed. Its results are given again, in the order
            recorded and before any job goes to the pool.
        rungs: how candidates race; dev examples are then asked for part by part in every query, so that
            batches, and with them the last bits of scores, are the same for all. None: no racing.

    Attributes:
        record: called with each new result of the pool before it is used.
        at_s: the run's clock at the latest result.
    """

    def __init__(
        self,
        pool: Pool,
        objective: Objective,
        *,
        past: Sequence[Record] = (),
        rungs: Rungs | None = None,
    ) -> None:
        self._pool = pool
        self._rungs = rungs
        self._results: dict[Key, JobResult] = {}
        self._pending: set[Key] = set()  # submitted, without a result yet
        self._jobs: dict[int, Key] = {}  # those that the pool has, by its key for the job
        self._recorded = RecordedResults(past)
        self.objective = objective
        self.record: Callable[[JobResult], None] | None = None
        self.at_s = 0.0
        self.clock = RunClock(self._recorded.seconds)

    @property
    def replays(self) -> bool:
        """Whether there are recorded results that were not asked for again yet."""
        return bool(self._recorded)

    def evaluate(
        self, round_: Round, on_result: Callable[[JobResult, float], None]
    ) -> list[Estimate]:
        """Evaluate a round on dev; results in the order of its candidates.

        With racing, candidates that cannot win the round's contest are dropped before they have met all
        examples; their fitness is an estimate.

        Args:
            round_: the candidates.
            on_result: called with each result and its fitness, as they complete.
        """
        fitness = self.objective.fitness
        if self._rungs is not None and round_.contest is not None:
            return race(
                self, self._rungs, round_.candidates, round_.contest, round_.best, on_result
            )
        results = self.run(
            [c.recipe for c in round_.candidates],
            DEV,
            on_result=lambda result: on_result(result, fitness(result)),
        )
        return [Estimate(result, fitness(result)) for result in results]

    def run(
        self,
        recipes: Sequence[Recipe],
        split: Split,
        kind: Kind = "score",
        on_result: Callable[[JobResult], None] | None = None,
    ) -> list[JobResult]:
        """Return results in the order of ``recipes``.

        ``on_result`` is called with each new one, as they complete.
        """
        return self._run(recipes, [self._query(r, split, kind) for r in recipes], on_result)

    def submit(self, recipe: Recipe, split: Split) -> None:
        """Request scores that were not requested before; :meth:`wait` gives them."""
        self._submit(recipe, *self._query(recipe, split, "score"))

    def wait(self) -> JobResult:
        """Wait for the next result of what was submitted.

        Raises:
            EvoError: there are recorded results that the search no longer asks for.
        """
        return self._wait()[1]

    def cancel(self) -> None:
        """Cancel what was submitted and no host has begun."""
        for job_key in self._pool.cancel(self._jobs.keys()):
            self._pending.remove(self._jobs.pop(job_key))

    def drain(self) -> Iterator[JobResult]:
        """Cancel what no host has begun, and yield the results of the rest."""
        self.cancel()
        while self._pending:
            yield self.wait()

    def events(self) -> tuple[PoolEvent, ...]:
        """What happened to the pool's hosts since the last call."""
        return self._pool.events()

    def influence(self, recipes: Sequence[Recipe]) -> dict[str, tuple[float, ...]]:
        """Block influence of each layer by recipe id, the mean over the tasks' dev examples.

        Raises:
            EvoError: the layers of one of the models can't be told apart.
        """
        found = {}
        for recipe, result in zip(recipes, self.run(recipes, DEV, "influence"), strict=True):
            if not result.ok:
                raise EvoError(f"block influence of {describe(recipe)}: {result.error}")
            each = [r.values for r in result.results]
            found[recipe.id] = tuple(math.fsum(v) / len(each) for v in zip(*each, strict=True))
        return found

    # For a race, whose rungs are queries of their own

    def run_part(self, recipes: Sequence[Recipe], queries: tuple[Query, ...]) -> list[JobResult]:
        """Return results of ``queries``, parts of the dev examples, without keeping them."""
        keyed = [(queries, (r.id, DEV, what_of(queries))) for r in recipes]
        results = self._run(recipes, keyed)
        for _, key in keyed:
            self._results.pop(key, None)
        return results

    def recorded_race(self, recipe: Recipe) -> JobResult | None:
        """The recorded result of an individual's whole race; None if there is none."""
        for what in (RACED, "score"):
            key = (recipe.id, DEV, what)
            result = self._recorded.take(key, recipe)
            if result is not None:
                self.keep(result, key)
                return result
        return None

    def exact(self, recipe_id: str) -> JobResult | None:
        """An individual's result on all dev examples; None if it has none, or failed."""
        found = self._results.get((recipe_id, DEV, "score"))
        return found if found and found.ok else None

    def keep(self, result: JobResult, key: Key) -> None:
        """Keep a result, so that it is not asked for again."""
        # Results are recorded in the order asked, though another may have ended last.
        self.at_s = max(self.at_s, result.at_s)
        self._results[key] = _packed(result)

    def _query(self, recipe: Recipe, split: Split, kind: Kind) -> tuple[tuple[Query, ...], Key]:
        """What to ask, and the key of the result."""
        key = (recipe.id, split, kind)
        if self._rungs is not None and (split, kind) == (DEV, "score"):
            return self._rungs.queries(), key
        return tuple(Query(t.task.name, split, kind) for t in self.objective.tasks), key

    def _run(
        self,
        recipes: Sequence[Recipe],
        keyed: Sequence[tuple[tuple[Query, ...], Key]],
        on_result: Callable[[JobResult], None] | None = None,
    ) -> list[JobResult]:
        missing = set()
        for recipe, (queries, key) in zip(recipes, keyed, strict=True):
            if key not in self._results:
                missing.add(key)
                if key not in self._pending:
                    self._submit(recipe, queries, key)
        while missing:
            key, result = self._wait()
            if key in missing:
                missing.remove(key)
                if on_result is not None:
                    on_result(result)
        return [self._results[key] for _, key in keyed]

    def _submit(self, recipe: Recipe, queries: tuple[Query, ...], key: Key) -> None:
        self._pending.add(key)
        if not self._recorded.request(key, recipe):
            self._jobs[self._pool.submit(Job(recipe, queries))] = key

    def _wait(self) -> tuple[Key, JobResult]:
        recorded = self._recorded.next()
        if recorded is not None:
            key, result = recorded
        else:
            self._recorded.check_used()
            # The pool may have jobs of other evaluators.
            result = replace(self._pool.wait(self._jobs.keys()), at_s=self.clock())
            key = self._jobs.pop(result.job.key)
            if self._rungs is not None and key[1:] == (DEV, "score"):
                result = self._rungs.joined([result])
            if self.record is not None:
                self.record(result)
        self._pending.remove(key)
        self.keep(result, key)
        return key, result


def _packed(result: JobResult) -> JobResult:
    """The same result in a quarter of the memory: all results of a run are kept."""
    return replace(
        result,
        results=tuple(
            replace(
                r,
                values=array("d", r.values),
                answers=tuple([intern(a) if isinstance(a, str) else a for a in r.answers]),
            )
            for r in result.results
        ),
    )
