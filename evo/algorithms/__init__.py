"""ALGORITHMS: every algorithm's settings and constructor, by name, in one visible table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, Field, TypeAdapter

from evo.algorithms.dataflow import Dataflow, DataflowSettings
from evo.algorithms.genome import GenomePlusSettings, GenomeSearch, GenomeSettings
from evo.algorithms.other_searches import (
    CrossEntropySettings,
    DifferentialEvolutionSettings,
    LoraHubSettings,
    cross_entropy,
    differential_evolution,
    lorahub,
)
from evo.algorithms.path_ga import JointSettings, PathGA, PathGASettings
from evo.algorithms.path_space import PathSettings
from evo.algorithms.protocol import Algorithm, Candidate, Scored, Start, SteadyAlgorithm
from evo.algorithms.random_search import RandomSearch, RandomSearchSettings
from evo.algorithms.recipe_search import RecipeSearchSettings, recipe_search
from evo.algorithms.sequence import SequenceSettings, Stages, StageSettings
from evo.errors import EvoError
from operators.merge import MERGES

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AlgorithmSettings",
    "Candidate",
    "Scored",
    "Start",
    "SteadyAlgorithm",
    "length_penalty",
    "make",
    "uses_paths",
    "wants_influence",
]


def _stages(settings: SequenceSettings, start: Start) -> SteadyAlgorithm:
    return Stages(settings, start, make)


def read_settings(data: Mapping[str, Any]) -> "AlgorithmSettings":
    """Checked settings from plain data: ``{"name": "genome", ...}``."""
    return TypeAdapter[AlgorithmSettings](AlgorithmSettings).validate_python(data)


ALGORITHMS: Final[Mapping[str, tuple[type[BaseModel], Callable[[Any, Start], SteadyAlgorithm]]]] = (
    MappingProxyType(
        {
            "genome": (GenomeSettings, GenomeSearch),
            "genome_plus": (GenomePlusSettings, GenomeSearch),
            "recipe_search": (RecipeSearchSettings, recipe_search),
            "cross_entropy": (CrossEntropySettings, cross_entropy),
            "differential_evolution": (DifferentialEvolutionSettings, differential_evolution),
            "lorahub": (LoraHubSettings, lorahub),
            "dataflow": (DataflowSettings, Dataflow),
            "path_ga": (PathGASettings, PathGA),
            "joint": (JointSettings, PathGA),
            "sequence": (SequenceSettings, _stages),
            "random_search": (RandomSearchSettings, RandomSearch),
        }
    )
)

AlgorithmSettings: TypeAlias = Annotated[
    StageSettings | SequenceSettings, Field(discriminator="name")
]


def make(settings: AlgorithmSettings, start: Start) -> SteadyAlgorithm:
    """The algorithm that ``settings`` name, at its beginning. Each one takes either loop.

    Raises:
        EvoError: more layer groups than the models have layers, or a filter that no tensor's name
            has in it: some genes would do nothing. Or the algorithm refuses founders or settings.
    """
    groups = getattr(settings, "layer_groups", 1)
    if groups > max(1, start.layers):
        raise EvoError(
            f"algorithm.layer_groups: {groups} groups, but the models have {start.layers} layers that "
            "can be told apart by name (layers.N, h.N or blocks.N)"
        )
    for method in _methods(settings):
        if method in MERGES and MERGES[method].adapters_only and not start.adapters:
            raise EvoError(
                f"algorithm: {method} merges LoRA adapters of the base, and not all founders are that"
            )
    for name in getattr(settings, "filters", ()):
        if start.tensors and not any(name in tensor for tensor in start.tensors):
            few = ", ".join(start.tensors[:3])
            raise EvoError(
                f"algorithm.filters: no tensor of the models has {name!r} in its name; they are called "
                f"{few} and so on"
            )
    return ALGORITHMS[settings.name][1](settings, start)


def wants_influence(settings: "AlgorithmSettings") -> bool:
    """Whether the algorithm, or a stage of it, asks for the models' block influence."""
    if isinstance(settings, SequenceSettings):
        return any(wants_influence(stage) for stage in settings.stages)
    return isinstance(settings, PathGASettings) and settings.influence


def uses_paths(settings: "AlgorithmSettings") -> bool:
    """Whether the algorithm, or a stage of it, searches data-flow paths."""
    if isinstance(settings, SequenceSettings):
        return any(uses_paths(stage) for stage in settings.stages)
    return isinstance(settings, PathSettings)


def length_penalty(settings: "AlgorithmSettings") -> float:
    """What fitness loses for each founder's length that a path is longer; of a sequence, the most."""
    if isinstance(settings, SequenceSettings):
        return max(length_penalty(stage) for stage in settings.stages)
    return settings.length_penalty if isinstance(settings, PathSettings) else 0.0


def _methods(settings: AlgorithmSettings) -> tuple[str, ...]:
    """The merge methods that an algorithm is set to use."""
    named = (getattr(settings, "crossover", ""), getattr(settings, "method", ""))
    return (*named, *getattr(settings, "methods", ()))
