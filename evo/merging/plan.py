"""What goes into every tensor of a merge: pure planning, from names and shapes alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from evo.errors import EvoError
from evo.merging.checkpoint import ModelFiles
from evo.merging.recipe_file import MergeFile, Slice, SliceSource
from evo.merging.settings import Settings, resolve
from operators.merge.table import Number, Parameter, Values
from operators.recipe.layers import at_layer, follows_layers
from operators.tensors.weights import TensorSpec

_DTYPES = {"": None, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class TensorAt:
    """A tensor of a model folder."""

    model: Path
    name: str


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor of the output; without ``values`` it is a copy of its only source."""

    spec: TensorSpec
    inputs: tuple[TensorAt, ...]
    base: TensorAt | None = None
    values: Values | None = None


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The output's tensors in order of name, and the (model, layer) that each of its layers is named
    after; empty where whole models are merged.
    """

    tensors: tuple[TensorPlan, ...]
    origins: tuple[tuple[Path, int], ...]


def plan(recipe: MergeFile, models: Mapping[Path, ModelFiles]) -> MergePlan:
    """Plan a merge of opened models.

    Raises:
        EvoError: layers that a model lacks, tensors that only some models have, shapes that differ,
            parameters that are out of bounds where they were interpolated.
    """
    return _Planner(recipe, models).plan()


class _Planner:
    def __init__(self, recipe: MergeFile, models: Mapping[Path, ModelFiles]) -> None:
        self._recipe = recipe
        self._models = models
        self._dtype = _DTYPES[recipe.dtype]
        self._resolved: dict[Any, Values] = {}

    def plan(self) -> MergePlan:
        slices = self._recipe.slices
        spans = [self._span(s) for s in slices]
        stacked = slices[0].inputs[0].stop is not None
        made = list(chain.from_iterable(self._outside(slices)))
        origins, index = [], 0
        for part, (start, layers) in zip(slices, spans, strict=True):
            for layer in range(layers):
                made.extend(self._layer(part, layer, layers, index))
                origins.append((part.inputs[0].path, start + layer))
                index += 1
        made.sort(key=lambda t: t.spec.name)
        return MergePlan(tuple(made), tuple(origins) if stacked else ())

    def _span(self, part: Slice) -> tuple[int, int]:
        """The first input's first layer, and the number of layers."""
        for source in part.sources:
            model = self._models[source.path]
            if source.stop is None:
                first = self._models[part.inputs[0].path]
                if len(model.layers) != len(first.layers):
                    source.node.fail(
                        f"{source.path} has {len(model.layers)} layers, and {first.path} has "
                        f"{len(first.layers)}"
                    )
            elif source.stop > len(model.layers):
                source.node.fail(
                    f"layer_range [{source.start}, {source.stop}]: {source.path} has "
                    f"{len(model.layers)} layers"
                )
            elif len(stacks := {n.split(".0.", 1)[0] for n in model.layers[0]}) > 1:
                source.node.fail(
                    f"{source.path} has several stacks of layers ({', '.join(sorted(stacks))}), "
                    "which slices can't tell apart; use models"
                )
        source = part.inputs[0]
        stop = len(self._models[source.path].layers) if source.stop is None else source.stop
        return source.start, stop - source.start

    def _outside(self, slices: tuple[Slice, ...]) -> Iterator[Iterator[TensorPlan]]:
        first, last = slices[0], slices[-1]

        def names(of: Callable[[str], bool]) -> Callable[[SliceSource], dict[str, str]]:
            return lambda s: {n: n for n in self._models[s.path].outside if of(n)}

        if first is last:
            yield self._tensors(first, names(lambda n: True), None, 1, str)
        else:
            yield self._tensors(first, names(lambda n: not follows_layers(n)), None, 1, str)
            yield self._tensors(last, names(follows_layers), None, 1, str)

    def _layer(self, part: Slice, layer: int, layers: int, index: int) -> Iterator[TensorPlan]:
        return self._tensors(
            part,
            lambda s: self._models[s.path].layers[s.start + layer],
            layer,
            layers,
            lambda name: at_layer(name, index),
        )

    def _tensors(
        self,
        part: Slice,
        names: Callable[[SliceSource], Mapping[str, str]],
        layer: int | None,
        layers: int,
        rename: Callable[[str], str],
    ) -> Iterator[TensorPlan]:
        """Plans for the tensors that ``names`` gives of each source, by what they have in common."""
        each = [names(s) for s in part.sources]
        keeper = each[-1] if part.base is not None else each[0]
        for key in sorted(set(chain.from_iterable(each))):
            at = [
                TensorAt(s.path, n[key]) if key in n else None
                for s, n in zip(part.sources, each, strict=True)
            ]
            tensors = [None if a is None else self._models[a.model].tensors[a.name] for a in at]
            floating = any(t is not None and t.is_floating_point() for t in tensors)
            if not floating:
                if key in keeper:  # integer buffers are nobody's to merge
                    source = TensorAt((part.base or part.inputs[0]).path, keeper[key])
                    kept = self._models[source.model].tensors[source.name]
                    yield TensorPlan(
                        TensorSpec(rename(key), tuple(kept.shape), kept.dtype), (source,)
                    )
                continue
            self._check(part, at)
            found = [a for a in at if a is not None]
            base = found.pop() if part.base is not None else None
            kept = self._models[(base or found[0]).model].tensors[(base or found[0]).name]
            spec = TensorSpec(rename(key), tuple(kept.shape), self._dtype or kept.dtype)
            values = self._values(part, spec.name, found, layer, layers)
            yield TensorPlan(spec, tuple(found), base, values)

    def _check(self, part: Slice, at: list[TensorAt | None]) -> None:
        """All sources have the tensor, in one shape."""
        has = next(a for a in at if a is not None)
        mine = self._models[has.model].tensors[has.name]
        for source, there in zip(part.sources, at, strict=True):
            if there is None:
                source.node.fail(
                    f"tensor {has.name!r} is in {has.model} but not in {source.path}. Models must "
                    "share one architecture; where heads are tied in some models and not in others, "
                    "set tokenizer_source: base or union, which unties them"
                )
            theirs = self._models[there.model].tensors[there.name]
            if theirs.shape != mine.shape:
                source.node.fail(
                    f"tensor {has.name!r} is {list(mine.shape)} in {has.model} but "
                    f"{list(theirs.shape)} in {there.model}. Models must share one architecture; for "
                    "different vocabularies set tokenizer_source: base or union"
                )

    def _values(
        self, part: Slice, name: str, inputs: list[TensorAt], layer: int | None, layers: int
    ) -> Values:
        params: dict[str, Any] = {}
        for parameter in self._recipe.method.parameters:
            scopes = (part.parameters, self._recipe.parameters)
            found: Any
            if parameter.per_input:
                found = tuple(
                    _first(parameter, (s.parameters or {}, *scopes), a.name, layer, layers)
                    for s, a in zip(part.inputs, inputs, strict=True)
                )
            else:
                found = _first(parameter, scopes, name, layer, layers)
            params[parameter.name] = found
        key = (len(inputs), part.base is None, *params.values())
        if key not in self._resolved:
            method = self._recipe.method
            try:
                resolved = resolve(method, len(inputs), part.base is not None, params)
            except ValueError as error:
                raise EvoError(f"{self._recipe.path}: tensor {name!r}: {error}") from error
            self._resolved[key] = Values(dict(resolved))
        return self._resolved[key]


def _first(
    parameter: Parameter,
    scopes: tuple[Settings, ...],
    tensor: str,
    layer: int | None,
    layers: int,
) -> Number:
    """The value that the innermost scope has for a tensor, or the default."""
    for scope in scopes:
        if parameter.name in scope:
            found = scope[parameter.name].at(tensor, layer, layers)
            if found is not None:
                return found
    return parameter.default
