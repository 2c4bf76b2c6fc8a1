"""``recipe_search``: CMA-ES over the parameters of any merge method, in stages.

By default the genes are one task-vector weight for each founder, θ = θ_b + Σ wᵢ(θᵢ − θ_b). The weights
are not confined to the founders' convex hull, which is what averaging methods can't leave.

Source: arXiv 2403.13187, section 3.1 (parameter space): σ₀ = 1/6 of each range, population
4 + ⌊3 ln D⌋, weights from 1/n (or 0.5: ``origin: 0.5``). That weights may be negative, and that they
start at 1/n, is what did best on the demo zoo (benchmarks/quality.py).
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from evo.algorithms.gene_search import GeneSearch, Origin, Stage
from evo.algorithms.gene_space import GeneSettings, checked_methods
from evo.algorithms.optimizers import CmaEs
from evo.algorithms.protocol import Start

TASK_VECTORS = "task_arithmetic"
FIRST_STAGE = 15  # evaluations for each founder


class RecipeSearchSettings(GeneSettings):
    """``method`` is any of MERGES; with ``methods`` the search also chooses among several, which share
    their parameters by name.

    ``origin`` is where weights start: ``uniform`` (1/n), ``fitness`` (in proportion to the founders' own),
    or a number for all. ``sigma0`` is relative to each gene's range. With layer groups or filters the
    search starts with one set of genes for all layers and tensors, and splits the best of them after
    ``first_stage`` evaluations (by default 15 for each founder), with half the step; 0 starts with all
    genes at once.
    """

    name: Literal["recipe_search"] = "recipe_search"
    method: str = TASK_VECTORS
    methods: tuple[str, ...] = ()
    origin: Origin = "uniform"
    sigma0: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0 / 6.0
    population: Annotated[int, Field(ge=4)] | None = None
    first_stage: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _known(self) -> "RecipeSearchSettings":
        if self.methods and self.method != TASK_VECTORS:
            raise ValueError("method and methods: give one of them")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: one is listed twice: {', '.join(self.methods)}")
        checked_methods(self.methods or (self.method,), self)
        return self


def recipe_search(settings: RecipeSearchSettings, start: Start) -> GeneSearch:
    """The search at its beginning.

    Raises:
        EvoError: the methods don't take these founders or settings.
    """
    methods = settings.methods or (settings.method,)
    first = FIRST_STAGE * len(set(start.founders))
    if settings.first_stage is not None:
        first = settings.first_stage

    def search(scale: float) -> partial[CmaEs]:
        return partial(CmaEs, sigma=settings.sigma0 * scale, population=settings.population)

    if first == 0 or not (settings.filters or settings.layer_groups > 1):
        stages = [Stage(methods, settings, search(1.0))]
    else:
        coarse = settings.model_copy(update={"layer_groups": 1, "filters": ()})
        stages = [Stage(methods, coarse, search(1.0), first), Stage(methods, settings, search(0.5))]
    return GeneSearch(start, stages, operator="cma_es", origin=settings.origin)
