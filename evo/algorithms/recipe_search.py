"""``recipe_search``: CMA-ES over one task-vector weight per founder (or per founder and layer group).

θ = θ_b + Σ wᵢ(θᵢ − θ_b). The weights are not confined to the founders' convex hull, which is what
averaging methods can't leave.

Source: arXiv 2403.13187, section 3.1 (parameter space); start and step size as measured on the demo
zoo (README): x₀ = 1/n, σ₀ = 0.15, population 4 + ⌊3 ln D⌋.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from evo.algorithms.protocol import Candidate, Scored, Start, founder_candidates
from operators.mutation import from_task_vectors
from operators.selection import ranking


class RecipeSearchSettings(BaseModel):
    """``x0`` defaults to 1/n for n founders, ``population`` to 4 + ⌊3 ln D⌋ for D weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["recipe_search"] = "recipe_search"
    layer_groups: Annotated[int, Field(ge=1)] = 1
    x0: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    sigma0: Annotated[float, Field(gt=0.0, le=100.0)] = 0.15
    population: Annotated[int, Field(ge=4)] | None = None


class RecipeSearch:
    """Ask/tell. Generation 0 evaluates the founders; each later one is a CMA-ES population.

    When CMA-ES has converged it starts again from the best weights found, with the first step size.
    """

    def __init__(self, settings: RecipeSearchSettings, start: Start) -> None:
        self._settings = settings
        self._start = start
        self._rng = np.random.default_rng(start.seed)
        count = len(start.founders)
        x0 = 1.0 / count if settings.x0 is None else settings.x0
        self._best_x: NDArray[np.float64] = np.full(count * settings.layer_groups, x0)
        self._best_fitness = -math.inf
        self._cma = self._new_search()
        self._asked: dict[str, NDArray[np.float64]] = {}
        self._population: tuple[Scored, ...] = ()
        self._generation = -1

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def population(self) -> tuple[Scored, ...]:
        return self._population

    def ask(self) -> list[Candidate]:
        if self._generation < 0:
            return founder_candidates(self._start)
        if self._cma.should_stop():
            self._cma = self._new_search()
        parents = tuple(s.candidate.id for s in self._population[:1])
        candidates = []
        self._asked = {}
        for _ in range(self._cma.population_size):
            x = self._cma.ask()
            recipe = from_task_vectors(
                self._start.founders, self._start.base, x.reshape(len(self._start.founders), -1)
            )
            self._asked[recipe.id] = x
            candidates.append(Candidate(recipe, "cma_es", parents))
        return candidates

    def tell(self, evaluations: Sequence[Scored]) -> None:
        if self._generation >= 0 and evaluations:
            fitness = [s.fitness for s in evaluations]
            finite = [f for f in fitness if math.isfinite(f)]
            worst = min(finite, default=0.0)  # a failed candidate ranks with the worst
            pairs = [
                (self._asked[s.candidate.id], -s.fitness if math.isfinite(s.fitness) else -worst)
                for s in evaluations
            ]
            self._cma.tell(pairs)
            x, loss = min(pairs, key=lambda p: p[1])
            if finite and -loss > self._best_fitness:
                self._best_fitness, self._best_x = -loss, x
        order = ranking([s.fitness for s in evaluations])
        self._population = tuple(evaluations[i] for i in order)
        self._generation += 1

    def _new_search(self) -> CMA:
        return CMA(
            mean=self._best_x,
            sigma=self._settings.sigma0,
            population_size=self._settings.population,
            seed=int(self._rng.integers(2**31)),
        )
