"""One tensor of recipes and of their parts: each part computed once, and no copy that is not needed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from operators.build.sums import Sum, spans, sum_up
from operators.merge import MERGES
from operators.merge.blocks import write
from operators.merge.table import Blocks, Values
from operators.recipe import (
    Founder,
    Linear,
    Merge,
    Noise,
    ParameterValue,
    Recipe,
    Route,
    parts,
    walk,
)
from operators.recipe.coefficients import Coefficient
from operators.tensors.low_rank import Factors, no_change, weighted_concat
from operators.tensors.threads import Work
from operators.tensors.weights import TensorSpec

# A sum is a change of the base if its coefficients add up to 1; they were rounded when they were made.
ONE = 1e-9

# The tensors, float32, of merges that see whole models.
Wholes: TypeAlias = Mapping[Recipe, Mapping[str, Tensor]]


class Sources(Protocol):
    """What the tensors of a recipe come from: the :class:`~operators.build.materialize.Materializer`."""

    @property
    def adapter_base(self) -> Founder | None: ...

    def founder_tensor(self, founder: Founder, name: str) -> Tensor | None: ...

    def founder_factors(
        self, founder: Founder, name: str, shape: tuple[int, ...]
    ) -> Factors | None: ...

    def direction(self, noise: Noise, name: str, shape: tuple[int, ...]) -> Tensor: ...

    def value(self, coefficient: Coefficient, name: str) -> float: ...

    def values(self, params: tuple[tuple[str, ParameterValue], ...], name: str) -> Values: ...


class OneTensor:
    """One tensor of some recipes, and of their parts as far as they were needed."""

    def __init__(self, owner: Sources, spec: TensorSpec, wholes: Wholes) -> None:
        self._owner = owner
        self._spec = spec
        self._wholes = wholes
        self._dense: dict[Recipe, Tensor] = {}
        self._changes: dict[Recipe, Factors | None] = {}
        self._base = owner.adapter_base

    def work(self, recipes: Sequence[Recipe], outs: Sequence[Tensor]) -> Iterator[Work]:
        """What is to be done to write ``recipes`` to ``outs``, in pieces for any number of threads.

        Weighted sums of founders need nothing computed first, and are cut as finely as one likes.
        """
        both = list(zip(recipes, outs, strict=True))
        leaves = [(r, o) for r, o in both if self._is_sum_of_stored(r)]
        others = [(r, o) for r, o in both if not self._is_sum_of_stored(r)]
        if leaves:
            sources, sums = self._gathered(leaves)
            for start, stop in spans(self._spec.elements):
                yield partial(sum_up, sources, sums, start, stop)
        if others:
            yield partial(self._write_all, others)

    def _write_all(self, pairs: Sequence[tuple[Recipe, Tensor]]) -> None:
        summed = [(r, o) for r, o in pairs if self._is_sum(r)]
        if summed:
            self._sum(summed)
        for recipe, out in pairs:
            if not self._is_sum(recipe):
                self.write(recipe, out)

    def write(self, recipe: Recipe, out: Tensor) -> None:
        """The tensor into ``out``, in whose dtype and on whose device it will be."""
        blocks = self._blocks(recipe)
        if self._is_sum(recipe):
            self._sum([(recipe, out)])
        elif blocks is not None and out.device.type == "cpu" and out.is_contiguous():
            write(blocks, out.view(-1))
        else:
            stored = self._stored(recipe)
            same = stored is not None and stored.dtype == out.dtype
            out.copy_(stored if stored is not None and same else self.dense(recipe))

    def dense(self, recipe: Recipe) -> Tensor:
        """The tensor in float32."""
        self._prepare(recipe)
        if recipe not in self._dense:
            self._dense[recipe] = self._compute(recipe)
        return self._dense[recipe]

    def factors(self, recipe: Recipe) -> Factors | None:
        """The tensor as a change of the adapters' base, or None where it has no such form."""
        if self._base is None:
            return None
        if recipe not in self._changes:
            for part in walk(recipe):
                if part not in self._changes:
                    self._changes[part] = self._change(part, self._base)
        return self._changes[recipe]

    def _is_sum(self, recipe: Recipe) -> bool:
        return isinstance(recipe, Linear) and self.factors(recipe) is None

    def _is_sum_of_stored(self, recipe: Recipe) -> bool:
        if self._base is not None or not isinstance(recipe, Linear):
            return False
        return all(isinstance(part, Founder) for part, _ in recipe.terms)

    def _stored(self, recipe: Recipe) -> Tensor | None:
        """A founder's tensor, in its own dtype; None for what has to be computed."""
        if not isinstance(recipe, Founder):
            return None
        return self._owner.founder_tensor(recipe, self._spec.name)

    def _ready(self, part: Recipe) -> Tensor:
        """What has been computed, or is stored: of any floating-point dtype."""
        stored = self._stored(part)
        return self._dense[part] if stored is None else stored

    def _prepare(self, recipe: Recipe) -> None:
        """Compute what ``recipe`` is made of, but not ``recipe``."""
        if all(self._stored(part) is not None for part in parts(recipe)):
            return
        # Parts before what uses them, and no recursion: ancestries may be thousands deep. A part
        # that is a change of the base needs none of its own parts.
        order, needed = walk(recipe), {recipe}
        for part in reversed(order):
            known = part in self._dense or part in self._wholes or self._stored(part) is not None
            if part in needed and not known and self.factors(part) is None:
                needed.update(parts(part))
        for part in order[:-1]:
            if part in needed and part not in self._dense and self._stored(part) is None:
                self._dense[part] = self._compute(part)

    def _sum(self, summed: Sequence[tuple[Recipe, Tensor]]) -> None:
        sources, sums = self._gathered(summed)
        sum_up(sources, sums, 0, self._spec.elements)

    def _gathered(self, summed: Sequence[tuple[Recipe, Tensor]]) -> tuple[list[Tensor], list[Sum]]:
        """What the weighted sums are made of, each source once for all of them; it is computed here."""
        numbers: dict[Recipe, int] = {}
        sums = []
        for recipe, out in summed:
            self._prepare(recipe)
            terms = recipe.terms if isinstance(recipe, Linear) else ()
            sums.append(
                Sum(
                    out.view(-1),
                    tuple(
                        (
                            numbers.setdefault(part, len(numbers)),
                            self._owner.value(coefficient, self._spec.name),
                        )
                        for part, coefficient in terms
                    ),
                )
            )
        return [self._ready(part).reshape(-1) for part in numbers], sums

    def _blocks(self, recipe: Recipe) -> Blocks | None:
        """A merge block by block, of inputs as they are stored; None where it can't be done so."""
        if not isinstance(recipe, Merge) or recipe in self._wholes:
            return None
        form = MERGES[recipe.method].blocks
        if form is None or self.factors(recipe) is not None:
            return None
        self._prepare(recipe)
        inputs = [self._ready(r) for r in recipe.inputs]
        base = None if recipe.base is None else self._ready(recipe.base)
        values = self._owner.values(recipe.params, self._spec.name)
        return form(inputs, base, values, recipe.seed, self._spec.name)

    def _compute(self, recipe: Recipe) -> Tensor:
        name, shape = self._spec.name, self._spec.shape
        change = self.factors(recipe)
        if change is not None and self._base is not None:
            base = self._ready(self._base).float()
            return base + change.dense().view(shape) if change.rank else base
        match recipe:
            case Founder():
                return self._ready(recipe).float()
            case Noise():
                return self._owner.direction(recipe, name, shape)
            case Linear():
                made = torch.empty(shape)
                self._sum([(recipe, made)])
                return made
            case Merge(method, inputs, base_recipe, params, seed):
                if recipe in self._wholes:
                    return self._wholes[recipe][name]
                blocks = self._blocks(recipe)
                if blocks is not None:
                    made = torch.empty(shape)
                    write(blocks, made.view(-1))
                    return made
                return MERGES[method].function(
                    [self._ready(r).float() for r in inputs],
                    None if base_recipe is None else self._ready(base_recipe).float(),
                    self._owner.values(params, name),
                    seed,
                    name,
                )
            case Route():
                raise TypeError("a path has no weights of its own: operators.build.paths lays it")

    def _change(self, recipe: Recipe, base: Founder) -> Factors | None:
        name, shape = self._spec.name, self._spec.shape
        match recipe:
            case Founder():
                if recipe == base:
                    return no_change(shape)
                return self._owner.founder_factors(recipe, name, shape)
            case Linear(terms):
                changes = [self._changes[r] for r, _ in terms]
                weights = [self._owner.value(c, name) for _, c in terms]
                whole = [c for c in changes if c is not None]
                if len(whole) < len(changes) or abs(math.fsum(weights) - 1.0) > ONE:
                    return None
                return weighted_concat(whole, weights)
            case Merge(method, inputs, base_recipe, params, seed):
                function = MERGES[method].factors
                changes = [self._changes[r] for r in inputs]
                whole = [c for c in changes if c is not None]
                if function is None or len(whole) < len(changes) or base_recipe != base:
                    return None
                return function(whole, self._owner.values(params, name), seed, name)
        return None
