"""gene_space: the genes of a search, from its settings, the founders and the ranges in MERGES."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evo.algorithms.genes import MASK, METHOD, GeneSpace, MethodGenes, ParameterGenes, Range
from evo.algorithms.protocol import Start
from evo.errors import EvoError
from operators.merge import method_named
from operators.merge.table import MergeMethod, Parameter
from operators.recipe import ParameterValue, Recipe

# The lower end of weights of task vectors that are not normalised, as a share of the upper one: founders
# that do harm are subtracted. (With 0, exact matches on the demo zoo are a tenth lower.)
NEGATIVE = -1.0 / 3.0


class GeneSettings(BaseModel):
    """What is searched among the parameters of merges.

    Every founder has its own number of each ``per_input`` parameter; each number exists once for every
    one of ``layer_groups`` groups of layers and once for the tensors that have one of ``filters`` in
    their name (the first filter that matches decides), and once for all other tensors. All parameters
    with a range in MERGES are searched, save those fixed in ``params``; ``bounds`` replaces ranges.
    A method that draws masks uses one seed for all candidates (common random numbers); with ``masks`` > 1
    the search chooses among that many seeds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    layer_groups: Annotated[int, Field(ge=1)] = 1
    filters: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    params: dict[str, bool | float | str] = {}
    bounds: dict[str, Range] = {}
    masks: Annotated[int, Field(ge=1)] = 1

    @field_validator("filters")
    @classmethod
    def _reachable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for i, later in enumerate(value):
            for earlier in value[:i]:
                if earlier in later:
                    raise ValueError(f"{later!r} is never reached: {earlier!r} comes before it")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "GeneSettings":
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise ValueError(f"bounds.{name} must be [low, high], got {[low, high]}")
            if name in self.params:
                raise ValueError(f"{name} is fixed in params and searched in bounds: drop one")
        return self


def checked_methods(methods: Sequence[str], settings: GeneSettings) -> None:
    """Check names of methods and parameters while the config is read.

    Raises:
        ValueError: an unknown method, or a parameter that no method has.
    """
    entries = [method_named(m) for m in methods]
    for key, names in (("params", settings.params), ("bounds", settings.bounds)):
        for name in names:
            if not any(e.parameter(name) for e in entries):
                known = ", ".join(dict.fromkeys(p.name for e in entries for p in e.parameters))
                raise ValueError(
                    f"{key}.{name}: {', '.join(methods)} has no such parameter: {known}"
                )


def gene_space(methods: Sequence[str], settings: GeneSettings, start: Start) -> GeneSpace:
    """The genes of ``methods`` over ``start.founders``.

    Methods that take fewer models than there are founders get the first ones. A method of task vectors
    does not normalise its weights unless ``params`` says so: the search finds the scale. Such weights may
    be negative, and ``lambda`` is not searched beside them, since it only scales them all. Of several
    methods only parameters that all have are searched, and those in ``bounds``: genes without effect on
    most candidates cost evaluations. Other parameters keep the value at which their search would start.

    Raises:
        EvoError: too few founders, methods that take different numbers of them, layer groups or
            filters for a method that sees whole models, a value that a method refuses, or nothing to
            search.
    """
    entries = [method_named(m) for m in methods]
    founders = _founders(entries, tuple(dict.fromkeys(start.founders)))
    columns = settings.layer_groups * (len(settings.filters) + 1)
    method_genes, parts = [], dict[str, ParameterGenes]()
    for entry in entries:
        if entry.scope == "model" and columns > 1:
            raise EvoError(
                f"{entry.name}: sees whole models, so its parameters can't differ by layer or tensor: "
                "leave out algorithm.layer_groups and algorithm.filters"
            )
        searched = [
            p
            for p in entry.parameters
            if all(_is_searched(e, e.parameter(p.name), settings) for e in entries)
            or p.name in settings.bounds
        ]
        ranges = {p.name: _range(entry, p, settings) for p in searched}
        fixed: dict[str, ParameterValue] = {
            k: v for k, v in settings.params.items() if entry.parameter(k)
        }
        if _weights_are_free(entry, settings):
            fixed["normalize"] = False
        fixed |= {
            p.name: _start(p, _range(entry, p, settings))
            for p in entry.parameters
            if _is_searched(entry, p, settings) and p not in searched
        }
        method_genes.append(MethodGenes(entry, tuple(fixed.items()), tuple(ranges.items())))
        for p in searched:
            inputs = len(founders) if p.per_input else 1
            part = _part(p, inputs, columns, ranges[p.name])
            parts[p.name] = _shared(parts.get(p.name, part), part)
    if not parts:
        raise EvoError(
            f"{', '.join(methods)}: no parameter {'of all ' if len(entries) > 1 else ''}has a range to "
            "search; give one in algorithm.bounds, or choose another method"
        )
    if settings.masks > 1 and any(e.seeded for e in entries):
        parts[MASK] = ParameterGenes(MASK, 1, 1, (0.0, settings.masks - 1.0), 0.0, True)
    if len(entries) > 1:
        parts[METHOD] = ParameterGenes(
            METHOD, 1, 1, (0.0, len(entries) - 1.0), (len(entries) - 1) / 2, True
        )
    space = GeneSpace(
        tuple(method_genes),
        founders,
        start.base,
        start.seed,
        settings.layer_groups,
        settings.filters,
        tuple(parts.values()),
    )
    try:
        for at in range(len(method_genes)):
            for x in (space.low, space.high):
                space.decode(space.encode(space.values(x) | {METHOD: np.array(float(at))}))
    except ValueError as error:
        raise EvoError(f"algorithm.params or .bounds: {error}") from error
    return space


def _founders(entries: Sequence[MergeMethod], founders: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
    for entry in entries:
        if len(founders) < entry.inputs[0]:
            raise EvoError(
                f"{entry.name}: takes {entry.inputs[0]} models or more, but there are {len(founders)}"
            )
    numbers = {e.name: len(founders[: e.inputs[1]]) for e in entries}
    if len(set(numbers.values())) > 1:
        each = ", ".join(f"{name} {count}" for name, count in numbers.items())
        raise EvoError(
            f"algorithm.methods: all must take the same number of models, but here they take: {each}"
        )
    return founders[: entries[0].inputs[1]]


def _part(parameter: Parameter, inputs: int, columns: int, range_: Range) -> ParameterGenes:
    start = _start(parameter, range_)
    return ParameterGenes(parameter.name, inputs, columns, range_, start, parameter.integer)


def _start(parameter: Parameter, range_: Range) -> float:
    """The default, or the middle of the range where the default is not strictly inside."""
    default, (low, high) = float(parameter.default), range_
    middle = (low + high) / 2
    if low < default < high:
        return default
    return float(round(middle)) if parameter.integer else middle


def _shared(a: ParameterGenes, b: ParameterGenes) -> ParameterGenes:
    """The genes that two methods share by name; each method clips them to its own range."""
    if (a.inputs, a.integer) != (b.inputs, b.integer):
        raise EvoError(
            f"algorithm.methods: {a.name} is not the same kind of number in all methods; search each alone"
        )
    ends = (min(a.range[0], b.range[0]), max(a.range[1], b.range[1]))
    return replace(a, range=ends)


def _is_searched(entry: MergeMethod, parameter: Parameter | None, settings: GeneSettings) -> bool:
    if parameter is None or parameter.name in settings.params:
        return False
    if parameter.name in settings.bounds:
        return True
    if parameter.name == "lambda" and _weights_are_free(entry, settings):
        return False
    return parameter.search is not None


def _weights_are_free(entry: MergeMethod, settings: GeneSettings) -> bool:
    """Whether weights of task vectors are searched and not normalised: scale and sign are theirs."""
    return (
        entry.base == "required"
        and entry.parameter("weight") is not None
        and entry.parameter("normalize") is not None
        and "weight" not in settings.params
        and settings.params.get("normalize", False) is False
    )


def _range(entry: MergeMethod, parameter: Parameter, settings: GeneSettings) -> Range:
    given = settings.bounds.get(parameter.name)
    if given is None:
        if parameter.search is None:
            raise ValueError(f"{entry.name}: {parameter.name} has no range to search")
        low, high = parameter.search
        free = parameter.name == "weight" and _weights_are_free(entry, settings)
        return (min(low, NEGATIVE * high), high) if free else (low, high)
    if parameter.choices or isinstance(parameter.default, bool | str):
        raise EvoError(
            f"algorithm.bounds.{parameter.name}: not a number; fix it in algorithm.params"
        )
    if parameter.integer and not all(b.is_integer() for b in given):
        raise EvoError(f"algorithm.bounds.{parameter.name}: must be whole numbers, got {given}")
    return given
