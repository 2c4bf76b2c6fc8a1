"""``random_search``: task-vector weights drawn from a scaled Dirichlet. The baseline for all others."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from evo.algorithms.population_search import PopulationSearch
from evo.algorithms.protocol import Candidate, Contest, Scored, Start, founder_candidates
from evo.algorithms.spec import AlgorithmSettings, AlgorithmSpec
from operators.variation.mutation import from_task_vectors


class RandomSearchSettings(AlgorithmSettings):
    """w = s·d, d ~ Dirichlet(``concentration``), s ~ U(``scale``)."""

    name: Literal["random_search"] = "random_search"
    batch: Annotated[int, Field(ge=1)] = 10
    concentration: Annotated[float, Field(gt=0.0)] = 1.0
    scale: tuple[float, float] = (0.8, 2.0)

    @model_validator(mode="after")
    def _ordered(self) -> "RandomSearchSettings":
        if not self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be [low, high], got {list(self.scale)}")
        return self


class RandomSearch(PopulationSearch[None]):
    """Ask/tell. Generation 0 evaluates the founders; every later one is ``batch`` random draws."""

    def __init__(self, settings: RandomSearchSettings, start: Start) -> None:
        super().__init__(start)
        self._settings = settings

    def ask(self) -> list[Candidate]:
        if self.generation < 0:
            return founder_candidates(self._start)
        return [self._draw() for _ in range(self._settings.batch)]

    def tell(self, evaluations: Sequence[Scored]) -> None:
        self._end_generation(evaluations)

    def contest(self, asked: int) -> Contest:
        """To be the best of the round."""
        return Contest(1)

    def _draw(self) -> Candidate:
        founders = self._start.founders
        shares = self._rng.dirichlet(np.full(len(founders), self._settings.concentration))
        weights = shares * self._rng.uniform(*self._settings.scale)
        return Candidate(from_task_vectors(founders, self._start.base, weights), "random")


RANDOM_SEARCH = AlgorithmSpec(RandomSearchSettings, RandomSearch)
