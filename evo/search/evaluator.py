"""Evaluator: recipes in, scores out, each recipe once on each split; and what fitness is."""

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from sys import intern
from time import perf_counter

from cluster.jobs import Job, JobResult, Kind, PoolEvent, Query
from cluster.pool import Pool
from evo.errors import EvoError
from evo.lineage.storage.records import RACED, Key, Record, what_of
from evo.search.rungs import DEV, Rungs
from fitness.tasks.task import Task
from operators.recipe import Recipe, Route, describe


@dataclass(frozen=True, slots=True)
class WeighedTask:
    """A task and its weight in the fitness."""

    task: Task
    weight: float = 1.0

    @property
    def share(self) -> float:
        """The weight, negative where a lower score is better."""
        return self.weight if self.task.higher_is_better else -self.weight


@dataclass(frozen=True, slots=True)
class Measure:
    """A fitness with its standard error, and each task's own mean and error. NaN if it failed."""

    fitness: float
    standard_error: float
    tasks: dict[str, tuple[float, float]]


class RunClock:
    """Seconds of a run's search, over all its sittings and without the pauses between them."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._before_s = before_s
        self._started: float | None = None

    def start(self) -> None:
        """Begin to run, if it does not yet."""
        self._started = perf_counter() if self._started is None else self._started

    def __call__(self) -> float:
        return self._before_s + (0.0 if self._started is None else perf_counter() - self._started)


class Evaluator:
    """Asks a pool for scores. Results are kept: no recipe is run twice on one split.

    ``step_cost`` is what a data-flow path's fitness loses for each of its steps beyond ``free_steps``, and
    gains for each that it has less: on every split but test, whose scores are reported as they are.

    ``past`` is what an earlier sitting of the run recorded. It is given out in the order recorded, and
    before anything that the pool has to do: that makes a loop that is run again a replay. ``remember`` is
    called with every new result, before anybody acts on it. With ``rungs`` the dev examples are asked part
    by part, also where all of them are asked at once.
    """

    def __init__(
        self,
        pool: Pool,
        tasks: Sequence[WeighedTask],
        *,
        step_cost: float = 0.0,
        free_steps: int = 0,
        past: Sequence[Record] = (),
        rungs: Rungs | None = None,
    ) -> None:
        self._pool = pool
        self._step_cost, self._free_steps = step_cost, free_steps
        self._tasks = tuple(tasks)
        self._total = sum(t.weight for t in tasks)
        self._rungs = rungs
        self._results: dict[Key, JobResult] = {}
        self._pending: set[Key] = set()  # submitted, and no result yet
        self._jobs: dict[int, Key] = {}  # those of them that the pool has, by its key for the job
        self._past: dict[Key, tuple[int, Record]] = {}
        # A kill just after a commit leaves a journal with the rungs of races that it has.
        over = {r.key[:2] for r in past if r.key[2] in (RACED, "score")}
        for position, record in enumerate(past):
            if not (record.queries[0].part and record.key[:2] in over):
                self._past.setdefault(record.key, (position, record))
        # A heap of those that were submitted and are in the past.
        self._recalled: list[tuple[int, Key, Recipe]] = []
        self.remember: Callable[[JobResult], None] | None = None
        self.at_s = 0.0  # the run's clock at the latest result
        self.clock = RunClock(max((r.at_s for r in past), default=0.0))

    @property
    def tasks(self) -> tuple[WeighedTask, ...]:
        return self._tasks

    @property
    def recalls(self) -> bool:
        """Whether the past is still being gone through."""
        return bool(self._past)

    def has_split(self, split: str) -> bool:
        return all(split in t.task.splits for t in self._tasks)

    def submit(
        self,
        recipe: Recipe,
        split: str,
        kind: Kind = "score",
        rungs: tuple[int, int] | None = None,
    ) -> None:
        """Ask for what was not asked before; :meth:`wait` gives it. ``rungs`` are the first of them, and
        the one to stop before; None: all examples.
        """
        queries, key = self._question(recipe, split, kind, rungs)
        self._pending.add(key)
        if key in self._past:
            heappush(self._recalled, (self._past[key][0], key, recipe))
        else:
            self._jobs[self._pool.submit(Job(recipe, queries))] = key

    def _question(
        self, recipe: Recipe, split: str, kind: Kind, rungs: tuple[int, int] | None
    ) -> tuple[tuple[Query, ...], Key]:
        queries = tuple(Query(t.task.name, split, kind) for t in self._tasks)
        if self._rungs is None or (split, kind) != (DEV, "score"):
            return queries, (recipe.id, split, kind)
        parts = self._rungs.queries(*(rungs or (0, len(self._rungs))))
        return parts, (recipe.id, split, what_of(parts if rungs else queries))

    def wait(self) -> JobResult:
        """The next result of what was submitted.

        Raises:
            EvoError: the past has evaluations that nobody asks for any more.
        """
        return self._wait()[1]

    def _wait(self) -> tuple[Key, JobResult]:
        if self._recalled:
            _, key, recipe = heappop(self._recalled)
            result = self._past.pop(key)[1].result(recipe)
        else:
            self._check_past()
            # The pool may have the jobs of other evaluators.
            result = replace(self._pool.wait(self._jobs.keys()), at_s=self.clock())
            key = self._jobs.pop(result.job.key)
            if self._rungs is not None and key[1:] == (DEV, "score"):
                result = self._rungs.joined([result])
            if self.remember is not None:
                self.remember(result)
        self._pending.remove(key)
        self.keep(result, key)
        return key, result

    def drain(self) -> Iterator[JobResult]:
        """Cancel what was submitted and no host has begun; give the results of the rest."""
        self.cancel()
        while self._pending:
            yield self.wait()

    def cancel(self) -> None:
        """Cancel what was submitted and no host has begun."""
        for job_key in self._pool.cancel(self._jobs.keys()):
            self._pending.remove(self._jobs.pop(job_key))

    def keep(self, result: JobResult, key: Key) -> None:
        """Know a result from now on."""
        # Results are recorded in the order asked, where another one may have ended last.
        self.at_s = max(self.at_s, result.at_s)
        self._results[key] = _packed(result)

    def forget(self, recipe: Recipe, rungs: tuple[int, int]) -> None:
        """Know no longer what single rungs gave."""
        self._results.pop(self._question(recipe, DEV, "score", rungs)[1], None)

    def recall(self, recipe: Recipe) -> JobResult | None:
        """What the past has of an individual's whole race; None if it has nothing of the kind."""
        for what in (RACED, "score"):
            key = (recipe.id, DEV, what)
            if key in self._past:
                result = self._past.pop(key)[1].result(recipe)
                self.keep(result, key)
                return result
        return None

    def known(self, recipe_id: str) -> JobResult | None:
        """An individual's result on all dev examples; None if there is none."""
        found = self._results.get((recipe_id, DEV, "score"))
        return found if found and found.ok else None

    def run(
        self,
        recipes: Sequence[Recipe],
        split: str,
        kind: Kind = "score",
        on_result: Callable[[JobResult], None] | None = None,
        rungs: tuple[int, int] | None = None,
    ) -> list[JobResult]:
        """Results in the order of ``recipes``; ``on_result`` hears of new ones as they complete."""
        keys = [self._question(r, split, kind, rungs)[1] for r in recipes]
        pairs = zip(keys, recipes, strict=True)
        missing = {key: r for key, r in pairs if key not in self._results}
        for key, recipe in missing.items():
            if key not in self._pending:
                self.submit(recipe, split, kind, rungs)
        while missing:
            key, result = self._wait()
            if missing.pop(key, None) is not None and on_result is not None:
                on_result(result)
        return [self._results[key] for key in keys]

    def events(self) -> tuple[PoolEvent, ...]:
        """What happened to the pool's hosts since the last call."""
        return self._pool.events()

    def _check_past(self) -> None:
        if self._past:
            _, first = min(self._past.values(), key=lambda entry: entry[0])
            raise EvoError(
                f"{len(self._past)} evaluations were recorded that the algorithm no longer asks for, the "
                f"first of {first.individual[:12]} on {first.key[1]}. What decides the search has changed "
                "(this package, numpy, cmaes): go on with the versions in manifest.json, or begin a new run"
            )

    def influence(self, recipes: Sequence[Recipe]) -> dict[str, tuple[float, ...]]:
        """Block influence of each layer by recipe id, the mean over the tasks' dev examples.

        Raises:
            EvoError: a model of these has no layers to tell apart.
        """
        found = {}
        for recipe, result in zip(recipes, self.run(recipes, "dev", "influence"), strict=True):
            if not result.ok:
                raise EvoError(f"block influence of {describe(recipe)}: {result.error}")
            each = [r.values for r in result.results]
            found[recipe.id] = tuple(math.fsum(v) / len(each) for v in zip(*each, strict=True))
        return found

    def measure(self, result: JobResult) -> Measure:
        """Fitness: the tasks' means, weighted, lower-is-better ones counted negative.

        The standard error takes the tasks' examples as independent.
        """
        if not result.ok:
            return Measure(math.nan, math.nan, {})
        measured = self.combine({r.query.task: (r.mean, r.standard_error) for r in result.results})
        if any(r.query.split == "test" for r in result.results):
            return measured
        return replace(measured, fitness=measured.fitness - self.cost(result.job.recipe))

    def cost(self, recipe: Recipe) -> float:
        """What a recipe's fitness loses for its steps; negative if it gains."""
        if not isinstance(recipe, Route):
            return 0.0
        return self._step_cost * (len(recipe.steps) - self._free_steps)

    def combine(self, means: dict[str, tuple[float, float]]) -> Measure:
        """The Measure of per-task (mean, standard error)."""
        shares = {t.task.name: t.share / self._total for t in self._tasks}
        fitness = math.fsum(shares[name] * mean for name, (mean, _) in means.items())
        error = math.sqrt(math.fsum((shares[n] * e) ** 2 for n, (_, e) in means.items()))
        return Measure(fitness, error, means)


def _packed(result: JobResult) -> JobResult:
    """The same in a quarter of the memory: all results of a run are kept, and they come as loose objects."""
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
