"""Algorithms decide which recipes to try next (ask, tell). ALGORITHMS is the one visible table of them.

Here belong the searches, their settings and what they share; running them does not (`evo.search`), and
neither do the operators that they use (`operators.variation`).
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny, ValidationInfo

from evo.algorithms.dataflow import DATAFLOW
from evo.algorithms.genome import GENOME, GENOME_PLUS
from evo.algorithms.own import OWN, known_arguments
from evo.algorithms.path_ga import JOINT, PATH_GA
from evo.algorithms.protocol import Algorithm, Candidate, Scored, Start, SteadyAlgorithm
from evo.algorithms.random_search import RANDOM_SEARCH
from evo.algorithms.recipe_search import PRESETS, RECIPE_SEARCH
from evo.algorithms.sequence import SequenceSettings, Stages
from evo.algorithms.spec import AlgorithmSettings, AlgorithmSpec, Traits
from evo.errors import EvoError
from operators.merge import MERGES

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AlgorithmSettings",
    "AlgorithmSpec",
    "AnyAlgorithm",
    "Candidate",
    "Scored",
    "Start",
    "SteadyAlgorithm",
    "Traits",
    "make",
    "read_settings",
    "traits",
]


def make(settings: AlgorithmSettings, start: Start) -> Algorithm:
    """The algorithm that ``settings`` name, before its first generation.

    Raises:
        EvoError: the models have fewer layers than ``layer_groups``, no tensor's name contains one of
            the ``filters``, a merge method of adapters gets whole models, or the algorithm refuses the
            founders or its settings.
    """
    groups = getattr(settings, "layer_groups", 1)
    if groups > max(1, start.layers):
        raise EvoError(
            f"algorithm.layer_groups: {groups} groups, but the models have {start.layers} layers that "
            "can be told apart by name (layers.N, h.N or blocks.N)"
        )
    for name in getattr(settings, "filters", ()):
        if start.tensors and not any(name in tensor for tensor in start.tensors):
            few = ", ".join(start.tensors[:3])
            raise EvoError(
                f"algorithm.filters: no tensor of the models has {name!r} in its name. Some names: {few}"
            )
    spec = _spec(settings.name)
    for method in spec.traits(settings).methods:
        if method in MERGES and MERGES[method].adapters_only and not start.adapters:
            raise EvoError(
                f"algorithm: {method} merges LoRA adapters of the base, and not all founders are adapters"
            )
    return spec.new(settings, start)


def traits(settings: AlgorithmSettings) -> Traits:
    """What the algorithm of ``settings`` needs from a run, and what it offers."""
    return _spec(settings.name).traits(settings)


def read_settings(data: Any, *, context: Mapping[str, Any] | None = None) -> AlgorithmSettings:
    """Checked settings from a name, or from plain data: ``{"name": "genome", ...}``.

    Raises:
        EvoError: there is no such algorithm; the message lists the names and the nearest.
        ValidationError: a setting is unknown or wrong.
    """
    if isinstance(data, AlgorithmSettings):
        return data
    given = {"name": data} if isinstance(data, str) else data
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise EvoError(f"name must be one of {_names()}, and is missing")
    return _spec(given["name"]).settings.model_validate(given, context=dict(context or {}))


def known_settings(name: str) -> tuple[str, ...]:
    """The keys that the algorithm called ``name`` takes."""
    if ":" in name:
        return ("name", *known_arguments(name))
    return tuple(_spec(name).settings.model_fields)


def _spec(name: str) -> AlgorithmSpec:
    if ":" in name:
        return OWN
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise EvoError(f"name must be one of {_names()}, got {name!r}.{hint}")
    return ALGORITHMS[name]


def _names() -> str:
    return ", ".join((*ALGORITHMS, "or your own class as package.module:Class"))


def _stages(settings: SequenceSettings, start: Start) -> Stages:
    return Stages(settings, start, make)


def _stage_traits(settings: SequenceSettings) -> Traits:
    """What any stage needs. The vote of an ensemble is not offered: the last stage may hold paths."""
    each = [traits(stage) for stage in settings.stages]
    return Traits(
        paths=any(t.paths for t in each),
        influence=any(t.influence for t in each),
        length_penalty=max(t.length_penalty for t in each),
        code=tuple(name for t in each for name in t.code),
    )


SEQUENCE = AlgorithmSpec(SequenceSettings, _stages, _stage_traits)

ALGORITHMS: Final[Mapping[str, AlgorithmSpec]] = MappingProxyType(
    {
        "genome": GENOME,
        "genome_plus": GENOME_PLUS,
        "recipe_search": RECIPE_SEARCH,
        **dict.fromkeys(PRESETS, RECIPE_SEARCH),
        "dataflow": DATAFLOW,
        "path_ga": PATH_GA,
        "joint": JOINT,
        "sequence": SEQUENCE,
        "random_search": RANDOM_SEARCH,
    }
)


def _validated(value: Any, info: ValidationInfo) -> AlgorithmSettings:
    return read_settings(value, context=info.context)


AnyAlgorithm: TypeAlias = Annotated[
    SerializeAsAny[AlgorithmSettings], BeforeValidator(_validated)
]  # the type of a config's field
