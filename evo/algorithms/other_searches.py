"""``cross_entropy``, ``differential_evolution`` and ``lorahub``: other optimizers over the same genes."""

from functools import partial
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from evo.algorithms.gene_search import GeneSearch, Origin, Stage
from evo.algorithms.gene_space import GeneSettings, checked_methods
from evo.algorithms.genes import GeneSpace, Vector
from evo.algorithms.optimizers import CmaEs, CrossEntropy, DifferentialEvolution
from evo.algorithms.protocol import Start

Share = Annotated[float, Field(gt=0.0, le=1.0)]
LORAHUB_RANGE: Final = (-1.5, 1.5)
LORAHUB_PENALTY: Final = 0.05


class _OneMethod(GeneSettings):
    """See ``recipe_search`` for ``method``, ``origin`` and ``sigma0``."""

    method: str = "task_arithmetic"
    origin: Origin = "uniform"
    sigma0: Share = 1.0 / 6.0

    @model_validator(mode="after")
    def _known(self) -> "_OneMethod":
        checked_methods((self.method,), self)
        return self


class CrossEntropySettings(_OneMethod):
    """``elite`` is the share of each population that the next is drawn like; ``smoothing`` how fast.

    The deviations only ever shrink (on the whole), so they start wide.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    sigma0: Share = 0.3
    population: Annotated[int, Field(ge=4)] = 20
    elite: Share = 0.25
    smoothing: Share = 0.5


class DifferentialEvolutionSettings(_OneMethod):
    """``weight`` is the range of F, ``crossover`` the share of genes that are changed."""

    name: Literal["differential_evolution"] = "differential_evolution"
    population: Annotated[int, Field(ge=4)] = 16
    weight: tuple[Share, Share] = (0.5, 0.9)
    crossover: Share = 0.9

    @model_validator(mode="after")
    def _ordered_weight(self) -> "DifferentialEvolutionSettings":
        if self.weight[0] > self.weight[1]:
            raise ValueError(f"weight must be [low, high], got {list(self.weight)}")
        return self


class LoraHubSettings(GeneSettings):
    """Weights of task vectors in [−1.5, 1.5]ⁿ from 0 on; the fitness loses 0.05·mean|w|.

    Derivative-free, by CMA-ES. Source: LoRAHub, arXiv 2307.13269.
    """

    name: Literal["lorahub"] = "lorahub"
    sigma0: Share = 1.0 / 6.0
    penalty: Annotated[float, Field(ge=0.0)] = LORAHUB_PENALTY
    population: Annotated[int, Field(ge=4)] | None = None

    @model_validator(mode="after")
    def _known(self) -> "LoraHubSettings":
        if self.params or set(self.bounds) - {"weight"}:
            raise ValueError("lorahub searches weights alone: leave out params and other bounds")
        return self


def cross_entropy(settings: CrossEntropySettings, start: Start) -> GeneSearch:
    """Raises EvoError where the method does not take these founders or settings; so do the others."""

    def new(x0: Vector, steps: Vector, seed: int) -> CrossEntropy:
        return CrossEntropy(
            x0,
            seed,
            sigma=settings.sigma0,
            population=settings.population,
            elite=settings.elite,
            smoothing=settings.smoothing,
        )

    stages = [Stage((settings.method,), settings, new)]
    return GeneSearch(start, stages, operator="cross_entropy", origin=settings.origin)


def differential_evolution(settings: DifferentialEvolutionSettings, start: Start) -> GeneSearch:
    def new(x0: Vector, steps: Vector, seed: int) -> DifferentialEvolution:
        return DifferentialEvolution(
            x0,
            seed,
            sigma=settings.sigma0,
            population=settings.population,
            weight=settings.weight,
            crossover=settings.crossover,
        )

    stages = [Stage((settings.method,), settings, new)]
    return GeneSearch(start, stages, operator="differential_evolution", origin=settings.origin)


def lorahub(settings: LoraHubSettings, start: Start) -> GeneSearch:
    def penalty(space: GeneSpace, x: Vector) -> float:
        return settings.penalty * float(np.abs(space.values(x)["weight"]).mean())

    new = partial(CmaEs, sigma=settings.sigma0, population=settings.population)
    ranges = settings.model_copy(update={"bounds": {"weight": LORAHUB_RANGE} | settings.bounds})
    stages = [Stage(("task_arithmetic",), ranges, new)]
    return GeneSearch(start, stages, operator="lorahub", origin=0.0, penalty=penalty)
