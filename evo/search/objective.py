"""Objective: computes fitness from the results of jobs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.jobs import JobResult
from fitness.splits import TEST, Split
from fitness.tasks.task import Task
from operators.recipe import Recipe, Route


@dataclass(frozen=True, slots=True)
class WeighedTask:
    """A task and its weight in the fitness."""

    task: Task
    weight: float = 1.0

    @property
    def signed_weight(self) -> float:
        """The weight, negative where a lower score is better."""
        return self.weight if self.task.higher_is_better else -self.weight


@dataclass(frozen=True, slots=True)
class SplitFitness:
    """Fitness on one split, its standard error, and (mean, standard error) of each task.

    NaN, and no tasks, if the evaluation failed.
    """

    fitness: float
    standard_error: float
    tasks: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Objective:
    """Fitness: the weighted mean of the tasks' scores, minus the cost of a data-flow path's length.

    Attributes:
        tasks: all tasks, with their weights.
        step_cost: subtracted from the fitness for each step of a path beyond ``free_steps``, and added for
            each step less. Not on test, which is reported without costs.
        free_steps: the number of steps without a cost.
    """

    tasks: tuple[WeighedTask, ...]
    step_cost: float = 0.0
    free_steps: int = 0

    def has_split(self, split: Split) -> bool:
        """Whether every task has examples for ``split``."""
        return all(split in t.task.splits for t in self.tasks)

    def score(self, result: JobResult) -> SplitFitness:
        """Return the fitness of a result."""
        if not result.ok:
            return SplitFitness(math.nan, math.nan, {})
        means = {r.query.task: (r.mean, r.standard_error) for r in result.results}
        combined = self.combine(means)
        if any(r.query.split == TEST for r in result.results):
            return combined
        return replace(combined, fitness=combined.fitness - self.length_cost(result.job.recipe))

    def fitness(self, result: JobResult) -> float:
        """Return the fitness alone; NaN if the evaluation failed."""
        return self.score(result).fitness

    def length_cost(self, recipe: Recipe) -> float:
        """Return what a path's steps cost in fitness; negative for a short path, 0 for other recipes."""
        if not isinstance(recipe, Route):
            return 0.0
        return self.step_cost * (len(recipe.steps) - self.free_steps)

    def combine(self, means: Mapping[str, tuple[float, float]]) -> SplitFitness:
        """Combine the tasks' (mean, standard error) by weight; tasks where lower is better count negative.

        The standard error takes the tasks' examples as independent.
        """
        total = sum(t.weight for t in self.tasks)
        weights = {t.task.name: t.signed_weight / total for t in self.tasks}
        fitness = math.fsum(weights[name] * mean for name, (mean, _) in means.items())
        error = math.sqrt(math.fsum((weights[n] * e) ** 2 for n, (_, e) in means.items()))
        return SplitFitness(fitness, error, means)
