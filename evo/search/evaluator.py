"""Evaluator: takes recipes, returns results; evaluates each recipe once on each split."""

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from sys import intern

from cluster.jobs import Job, JobResult, Kind, PoolEvent, Query
from cluster.pool import Pool
from evo.errors import EvoError
from evo.lineage.storage.records import RACED, Key, Record, what_of
from evo.search.clock import RunClock
from evo.search.objective import Objective
from evo.search.recorded import RecordedResults
from evo.search.rungs import Rungs
from fitness.splits import DEV, Split
from operators.recipe import Recipe, describe


class Evaluator:
    """Evaluates recipes in a pool, and keeps the results. Other evaluators may use the same pool.

    Args:
        pool: runs the jobs.
        objective: the tasks, and how fitness follows from their scores.
        past: the records of a run that is resumed. Their results are returned in the order recorded,
            before any job is submitted to the pool.
        known: records whose results are returned if they are requested, and need not be.
        rungs: the parts in which candidates race. Every query on dev is then split into these parts, so
            that batches, and with them the last bits of scores, are the same for all. None: no racing.

    Attributes:
        objective, rungs: as given.
        record: called with each new result of the pool before it is used.
        at_s: the run's clock at the latest result.
        clock: the run's clock.
    """

    def __init__(
        self,
        pool: Pool,
        objective: Objective,
        *,
        past: Sequence[Record] = (),
        known: Sequence[Record] = (),
        rungs: Rungs | None = None,
    ) -> None:
        self._pool = pool
        self._results: dict[Key, JobResult] = {}
        self._pending: set[Key] = set()  # submitted, without a result yet
        self._jobs: dict[int, Key] = {}  # jobs in the pool: the pool's key -> ours
        self._recorded = RecordedResults(past, known)
        self.objective = objective
        self.rungs = rungs
        self.record: Callable[[JobResult], None] | None = None
        self.at_s = 0.0
        self.clock = RunClock(self._recorded.seconds)

    @property
    def replays(self) -> bool:
        """Whether recorded results are left that the search has not requested again."""
        return bool(self._recorded)

    def run(
        self,
        recipes: Sequence[Recipe],
        split: Split,
        kind: Kind = "score",
        on_result: Callable[[JobResult], None] | None = None,
    ) -> list[JobResult]:
        """Evaluate recipes on a split; return the results in the order of ``recipes``.

        ``on_result`` is called with each new result, in the order of completion.
        """
        return self._run(recipes, [self._query(r, split, kind) for r in recipes], on_result)

    def submit(self, recipe: Recipe, split: Split) -> None:
        """Submit a recipe that was not submitted before; :meth:`wait` returns its result."""
        self._submit(recipe, *self._query(recipe, split, "score"))

    def wait(self) -> JobResult:
        """Wait for the next result of a submitted recipe.

        Raises:
            EvoError: recorded results are left that the search does not request.
        """
        return self._wait()[1]

    def cancel(self) -> None:
        """Cancel the submitted jobs that no host has started."""
        for job_key in self._pool.cancel(self._jobs.keys()):
            self._pending.remove(self._jobs.pop(job_key))

    def drain(self) -> Iterator[JobResult]:
        """Cancel the jobs that no host has started, and yield the results of the others."""
        self.cancel()
        while self._pending:
            yield self.wait()

    def events(self) -> tuple[PoolEvent, ...]:
        """Return what happened to the pool's hosts since the last call."""
        return self._pool.events()

    def influence(self, recipes: Sequence[Recipe]) -> dict[str, tuple[float, ...]]:
        """Return the block influence of each layer, by recipe id: the mean over the tasks' dev examples.

        Raises:
            EvoError: the influence of a recipe could not be measured.
        """
        found = {}
        for recipe, result in zip(recipes, self.run(recipes, DEV, "influence"), strict=True):
            if not result.ok:
                raise EvoError(f"block influence of {describe(recipe)}: {result.error}")
            each = [r.values for r in result.results]
            found[recipe.id] = tuple(math.fsum(v) / len(each) for v in zip(*each, strict=True))
        return found

    # For racing, where each rung is a job of its own

    def run_part(self, recipes: Sequence[Recipe], queries: tuple[Query, ...]) -> list[JobResult]:
        """Evaluate ``queries``, parts of the dev examples; return the results without keeping them."""
        keyed = [(queries, (r.id, DEV, what_of(queries))) for r in recipes]
        results = self._run(recipes, keyed)
        for _, key in keyed:
            self._results.pop(key, None)
        return results

    def recorded_race(self, recipe: Recipe) -> JobResult | None:
        """Return the recorded result of an individual's whole race; None if there is none."""
        for what in (RACED, "score"):
            key = (recipe.id, DEV, what)
            result = self._recorded.take(key, recipe)
            if result is not None:
                self.keep(result, key)
                return result
        return None

    def exact(self, recipe_id: str) -> JobResult | None:
        """Return an individual's result on all dev examples; None if it has none, or failed."""
        found = self._results.get((recipe_id, DEV, "score"))
        return found if found and found.ok else None

    def keep(self, result: JobResult, key: Key) -> None:
        """Keep a result, so that it is not requested again."""
        # Results are recorded in the order requested, which may differ from that of completion.
        self.at_s = max(self.at_s, result.at_s)
        self._results[key] = _packed(result)

    def _query(self, recipe: Recipe, split: Split, kind: Kind) -> tuple[tuple[Query, ...], Key]:
        """Return the queries of a job, and the key of its result."""
        key = (recipe.id, split, kind)
        if self.rungs is not None and (split, kind) == (DEV, "score"):
            return self.rungs.queries(), key
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
            if self.rungs is not None and key[1:] == (DEV, "score"):
                result = self.rungs.joined([result])
            if self.record is not None:
                self.record(result)
        self._pending.remove(key)
        self.keep(result, key)
        return key, result


def _packed(result: JobResult) -> JobResult:
    """Return the same result in a quarter of the memory: all results of a run are kept."""
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
