"""AlgorithmSpec: one entry of ALGORITHMS. AlgorithmSettings and Traits: what every entry has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from evo.algorithms.protocol import Algorithm, Start


class AlgorithmSettings(BaseModel):
    """The settings of one algorithm. ``name`` is its name in ALGORITHMS, or "package.module:Class"."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str


@dataclass(frozen=True, slots=True)
class Traits:
    """What an algorithm with its settings needs from a run, and what it offers.

    Attributes:
        paths: it searches data-flow paths, so the base needs a known architecture.
        influence: it uses the block influence of the founders' layers, which costs one forward pass
            for each founder at the start.
        voters: the number of best individuals whose vote is scored at the end of the run; 0 for none.
        length_penalty: the fitness that a path loses for each founder's length that it is longer.
        methods: the merge methods that it is set to use.
        code: the user's classes among its parts, as "package.module:Class".
    """

    paths: bool = False
    influence: bool = False
    voters: int = 0
    length_penalty: float = 0.0
    methods: tuple[str, ...] = ()
    code: tuple[str, ...] = ()


def no_traits(_: Any) -> Traits:
    """The traits of an algorithm that needs nothing and offers nothing."""
    return Traits()


@dataclass(frozen=True, slots=True)
class AlgorithmSpec:
    """One algorithm: its settings, its constructor, and its traits as a function of the settings."""

    settings: type[AlgorithmSettings]
    new: Callable[[Any, Start], Algorithm]
    traits: Callable[[Any], Traits] = no_traits
