"""ALGORITHMS: every algorithm's settings and constructor, by name, in one visible table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, Field

from evo.algorithms.genome import Genome, GenomePlusSettings, GenomeSettings
from evo.algorithms.protocol import Algorithm, Candidate, Scored, Start
from evo.algorithms.random_search import RandomSearch, RandomSearchSettings
from evo.algorithms.recipe_search import RecipeSearch, RecipeSearchSettings

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
    """The algorithm that ``settings`` name, at its beginning."""
    return ALGORITHMS[settings.name][1](settings, start)
