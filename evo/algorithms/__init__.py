"""ALGORITHMS: every algorithm's settings and constructor, by name, in one visible table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, Field

from evo.algorithms.genome import Genome, GenomePlusSettings, GenomeSettings
from evo.algorithms.protocol import Algorithm, Candidate, Scored, Start
from evo.algorithms.random_search import RandomSearch, RandomSearchSettings
from evo.algorithms.recipe_search import RecipeSearch, RecipeSearchSettings
from evo.errors import UserError

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmSettings", "Candidate", "Scored", "Start", "make"]

ALGORITHMS: Final[Mapping[str, tuple[type[BaseModel], Callable[[Any, Start], Algorithm]]]] = (
    MappingProxyType(
        {
            "genome": (GenomeSettings, Genome),
            "genome_plus": (GenomePlusSettings, Genome),
            "recipe_search": (RecipeSearchSettings, RecipeSearch),
            "random_search": (RandomSearchSettings, RandomSearch),
        }
    )
)

AlgorithmSettings: TypeAlias = Annotated[
    GenomeSettings | GenomePlusSettings | RecipeSearchSettings | RandomSearchSettings,
    Field(discriminator="name"),
]


def make(settings: AlgorithmSettings, start: Start) -> Algorithm:
    """The algorithm that ``settings`` name, at its beginning.

    Raises:
        UserError: more layer groups than the models have layers: some would hold no tensor.
    """
    groups = getattr(settings, "layer_groups", 1)
    if groups > max(1, start.layers):
        raise UserError(
            f"algorithm.layer_groups: {groups} groups, but the models have {start.layers} layers that "
            "can be told apart by name (layers.N, h.N or blocks.N)"
        )
    return ALGORITHMS[settings.name][1](settings, start)
