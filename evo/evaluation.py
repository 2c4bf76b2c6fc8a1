"""Evaluator: recipes in, scores out, each recipe once on each split; and what fitness is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cluster.jobs import Ask, Job, JobResult, Kind
from cluster.pool import Pool, run_all
from evo.errors import UserError
from fitness.tasks import Task
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


class Evaluator:
    """Asks a pool for scores. Results are kept: no recipe is run twice on one split.

    ``step_cost`` is what a data-flow path's fitness loses for each of its steps beyond ``free_steps``, and
    gains for each that it has less: on every split but test, whose scores are reported as they are.
    """

    def __init__(
        self,
        pool: Pool,
        tasks: Sequence[WeighedTask],
        *,
        step_cost: float = 0.0,
        free_steps: int = 0,
    ) -> None:
        self._pool = pool
        self._step_cost, self._free_steps = step_cost, free_steps
        self._tasks = tuple(tasks)
        self._total = sum(t.weight for t in tasks)
        self._results: dict[tuple[str, str, Kind], JobResult] = {}
        self._next_key = 0

    @property
    def tasks(self) -> tuple[WeighedTask, ...]:
        return self._tasks

    def has_split(self, split: str) -> bool:
        return all(split in t.task.splits for t in self._tasks)

    def run(
        self,
        recipes: Sequence[Recipe],
        split: str,
        kind: Kind = "score",
        on_result: Callable[[JobResult], None] | None = None,
    ) -> list[JobResult]:
        """Results in the order of ``recipes``; ``on_result`` hears of new ones as they complete."""
        asks = tuple(Ask(t.task.name, split, kind) for t in self._tasks)
        missing = {r.id: r for r in recipes if (r.id, split, kind) not in self._results}
        jobs = []
        for recipe in missing.values():
            jobs.append(Job(self._next_key, recipe, asks))
            self._next_key += 1
        for result in run_all(self._pool, jobs):
            self._results[result.job.recipe.id, split, kind] = result
            if on_result is not None:
                on_result(result)
        return [self._results[r.id, split, kind] for r in recipes]

    def influence(self, recipes: Sequence[Recipe]) -> dict[str, tuple[float, ...]]:
        """Block influence of each layer by recipe id, the mean over the tasks' dev examples.

        Raises:
            UserError: a model of these has no layers to tell apart.
        """
        found = {}
        for recipe, result in zip(recipes, self.run(recipes, "dev", "influence"), strict=True):
            if not result.ok:
                raise UserError(f"block influence of {describe(recipe)}: {result.error}")
            each = [r.values for r in result.results]
            found[recipe.id] = tuple(math.fsum(v) / len(each) for v in zip(*each, strict=True))
        return found

    def measure(self, result: JobResult) -> Measure:
        """Fitness: the tasks' means, weighted, lower-is-better ones counted negative.

        The standard error takes the tasks' examples as independent.
        """
        if not result.ok:
            return Measure(math.nan, math.nan, {})
        measured = self.combine({r.ask.task: (r.mean, r.standard_error) for r in result.results})
        recipe = result.job.recipe
        if not isinstance(recipe, Route) or any(r.ask.split == "test" for r in result.results):
            return measured
        cost = self._step_cost * (len(recipe.steps) - self._free_steps)
        return replace(measured, fitness=measured.fitness - cost)

    def combine(self, means: dict[str, tuple[float, float]]) -> Measure:
        """The Measure of per-task (mean, standard error)."""
        shares = {t.task.name: t.share / self._total for t in self._tasks}
        fitness = math.fsum(shares[name] * mean for name, (mean, _) in means.items())
        error = math.sqrt(math.fsum((shares[n] * e) ** 2 for n, (_, e) in means.items()))
        return Measure(fitness, error, means)
