"""``recipe_search``: an optimizer over the parameters of any merge method, in stages; and its presets.

By default the genes are one task-vector weight for each founder, θ = θ_b + Σ wᵢ(θᵢ − θ_b). The weights
are not confined to the founders' convex hull, which averaging methods can't leave.

Source: arXiv 2403.13187, section 3.1 (parameter space): CMA-ES with σ₀ = 1/6 of each range, population
4 + ⌊3 ln D⌋, weights from 1/n (or 0.5: ``origin: 0.5``). That weights may be negative, and that they
start at 1/n, did best on the demo zoo (benchmarks/quality.py).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from evo.algorithms.gene_search import GeneSearch, NewOptimizer, Origin, Stage
from evo.algorithms.gene_space import GeneSettings, checked_methods
from evo.algorithms.optimizers import CrossEntropy, DifferentialEvolution, Optimizer, cma_es
from evo.algorithms.protocol import Start
from evo.algorithms.spec import AlgorithmSettings, AlgorithmSpec, Traits

TASK_VECTORS = "task_arithmetic"
FIRST_STAGE = 15  # evaluations for each founder
Share = Annotated[float, Field(gt=0.0, le=1.0)]

OPTIMIZERS: Final[Mapping[str, Callable[..., Optimizer]]] = {
    "cma_es": cma_es,
    "cross_entropy": CrossEntropy,
    "differential_evolution": DifferentialEvolution,
}

# The settings of each optimizer and their defaults. Deviations of cross-entropy shrink on the whole, so
# they start wide.
OPTIMIZER_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cma_es": {"population": None},
    "cross_entropy": {"sigma0": 0.3, "population": 20, "elite": 0.25, "smoothing": 0.5},
    "differential_evolution": {"population": 16, "factor": (0.5, 0.9), "crossover": 0.9},
}

# Names for settings of this search. lorahub: weights in [−1.5, 1.5]ⁿ from 0 on, and the fitness loses
# 0.05·mean|w|, by CMA-ES. Source: LoRAHub, arXiv 2307.13269, section 2.2.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cross_entropy": {"optimizer": "cross_entropy", "first_stage": 0},
    "differential_evolution": {"optimizer": "differential_evolution", "first_stage": 0},
    "lorahub": {
        "bounds": {"weight": (-1.5, 1.5)},
        "origin": 0.0,
        "penalty": 0.05,
        "first_stage": 0,
    },
}


class RecipeSearchSettings(GeneSettings, AlgorithmSettings):
    """``method`` is any of MERGES; with ``methods`` the search also chooses among several, which share
    their parameters by name.

    ``origin`` is where weights start: ``uniform`` (1/n), ``fitness`` (in proportion to the founders' own),
    or a number for all. With layer groups or filters the search starts with one set of genes for all
    layers and tensors, and splits the best of them after ``first_stage`` evaluations (by default 15 for
    each founder), with half the step; 0 starts with all genes at once. The fitness that the optimizer
    sees is lower by ``penalty`` times the mean absolute weight.

    ``sigma0`` is the first deviation, relative to each gene's range; ``population`` the number of
    candidates a generation. Of ``cross_entropy``: ``elite`` is the share of a population that sets the
    next mean and deviation, ``smoothing`` how far they move. Of ``differential_evolution``: ``factor`` is
    the range of F, ``crossover`` the share of genes that are changed.
    """

    name: Literal["recipe_search", "cross_entropy", "differential_evolution", "lorahub"] = (
        "recipe_search"
    )
    method: str = TASK_VECTORS
    methods: tuple[str, ...] = ()
    origin: Origin = "uniform"
    optimizer: Literal["cma_es", "cross_entropy", "differential_evolution"] = "cma_es"
    sigma0: Share = 1.0 / 6.0
    population: Annotated[int, Field(ge=4)] | None = None
    first_stage: Annotated[int, Field(ge=0)] | None = None
    penalty: Annotated[float, Field(ge=0.0)] = 0.0
    elite: Share | None = None
    smoothing: Share | None = None
    factor: tuple[Share, Share] | None = None
    crossover: Share | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = {k: v for k, v in data.items() if v is not None}
        chosen = {**PRESETS.get(str(given.get("name")), {}), **given}
        return {**OPTIMIZER_DEFAULTS.get(str(chosen.get("optimizer", "cma_es")), {}), **chosen}

    @model_validator(mode="after")
    def _consistent(self) -> "RecipeSearchSettings":
        if self.methods and self.method != TASK_VECTORS:
            raise ValueError("method and methods: give one of them")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: one is listed twice: {', '.join(self.methods)}")
        for optimizer, settings in OPTIMIZER_DEFAULTS.items():
            for key in settings.keys() - OPTIMIZER_DEFAULTS[self.optimizer].keys() - {"sigma0"}:
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} needs optimizer: {optimizer}")
        if self.factor and self.factor[0] > self.factor[1]:
            raise ValueError(f"factor must be [low, high], got {list(self.factor)}")
        checked_methods(self.methods or (self.method,), self)
        return self


def _new(settings: RecipeSearchSettings, start: Start) -> GeneSearch:
    methods = settings.methods or (settings.method,)
    first = FIRST_STAGE * len(set(start.founders))
    if settings.first_stage is not None:
        first = settings.first_stage
    own = {k: getattr(settings, k) for k in OPTIMIZER_DEFAULTS[settings.optimizer] if k != "sigma0"}

    def optimizer(scale: float) -> NewOptimizer:
        return partial(OPTIMIZERS[settings.optimizer], sigma=settings.sigma0 * scale, **own)

    if first == 0 or not (settings.filters or settings.layer_groups > 1):
        stages = [Stage(methods, settings, optimizer(1.0))]
    else:
        coarse = settings.model_copy(update={"layer_groups": 1, "filters": ()})
        fine = Stage(methods, settings, optimizer(0.5))
        stages = [Stage(methods, coarse, optimizer(1.0), first), fine]
    return GeneSearch(
        start,
        stages,
        operator=settings.optimizer,
        origin=settings.origin,
        penalty=settings.penalty,
    )


def _traits(settings: RecipeSearchSettings) -> Traits:
    return Traits(methods=settings.methods or (settings.method,))


RECIPE_SEARCH = AlgorithmSpec(RecipeSearchSettings, _new, _traits)
