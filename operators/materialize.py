"""Recipe + founders -> weights. Accumulates in float32, casts once at the end."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from operators.coefficients import Coefficient, layer_count, value_at
from operators.lowrank import Adapter, Factors, no_change, weighted_concat
from operators.merge import MERGES
from operators.merge.linear import weighted_sum
from operators.merge.table import Number, Values
from operators.noise import direction as noise_direction
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
from operators.weights import Layout, TensorSpec, Weights, allocate

NOISE_CACHE_BYTES = 256 * 2**20
# A sum is a change of the base if its coefficients add up to 1; they were rounded when they were made.
ONE = 1e-9


class MissingFounderError(ValueError):
    """A recipe names a founder that is not at hand, or whose tensors have changed."""


class Materializer:
    """Builds the weights of recipes over one set of founders: whole models, or adapters of one base.

    Holds the founders (by digest) and the noise directions used last, since parents and children
    share most of theirs. Not thread-safe: one for each host.
    """

    def __init__(self, layout: Layout, founders: Mapping[Founder, Weights | Adapter]) -> None:
        self._layout = layout
        self._layers = layer_count(layout.names)
        self._founders = dict(founders)
        self._noise: OrderedDict[tuple[Noise, str], Tensor] = OrderedDict()
        self._noise_bytes = 0
        bases = {a.base for a in founders.values() if isinstance(a, Adapter)}
        if len(bases) > 1:
            raise ValueError("the adapters have different bases")
        self.adapter_base: Final = next(iter(bases), None)

    @property
    def layout(self) -> Layout:
        return self._layout

    def build(self, recipe: Recipe, out: Weights | None = None) -> Weights:
        """The weights of ``recipe``, written into ``out`` (made if None) in the layout's dtypes.

        Each tensor is computed alone, in float32, in the recipe's canonical order of terms: the same
        recipe gives the same bits, whatever was built before.

        Raises:
            MissingFounderError: the recipe names a founder that is not here.
        """
        self._check_founders(recipe)
        weights = allocate(self._layout) if out is None else out
        with torch.inference_mode():
            wholes = self._wholes(recipe)
            for spec in self._layout:
                weights[spec.name].copy_(_Tensors(self, spec, wholes).dense(recipe))
        return weights

    def factors(self, recipe: Recipe) -> dict[str, Factors] | None:
        """``recipe`` as a change of its adapters' base: factors by name of tensor, rank 0 left out.

        None where it is not a change of low rank: it holds whole models, full-rank noise, or a merge
        that needs the tensors themselves.
        """
        self._check_founders(recipe)
        made = {}
        with torch.inference_mode():
            for spec in self._layout:
                found = _Tensors(self, spec, {}).factors(recipe)
                if found is None:
                    return None
                if found.rank:
                    made[spec.name] = found
        return made

    # What the tensors of a recipe need to know of the founders.

    def founder_tensor(self, founder: Founder, name: str) -> Tensor:
        """A founder's tensor in float32; that of a whole model."""
        model = self._founders[founder]
        if isinstance(model, Adapter):
            raise TypeError("an adapter has factors, not tensors")
        return model[name].float()

    def founder_factors(
        self, founder: Founder, name: str, shape: tuple[int, ...]
    ) -> Factors | None:
        """An adapter's change of one tensor; None if the founder is a whole model."""
        model = self._founders[founder]
        if not isinstance(model, Adapter):
            return None
        return model.factors[name] if name in model.factors else no_change(shape)

    def value(self, coefficient: Coefficient, name: str) -> float:
        return value_at(coefficient, name, self._layers)

    def values(self, params: tuple[tuple[str, ParameterValue], ...], name: str) -> Values:
        """The parameters of a merge as they hold for one tensor."""

        def at(value: ParameterValue) -> Number | tuple[float, ...]:
            if isinstance(value, bool | str):
                return value
            if isinstance(value, tuple):
                return tuple(self.value(v, name) for v in value)
            return self.value(value, name)

        return Values({k: at(v) for k, v in params})

    def _check_founders(self, recipe: Recipe) -> None:
        for part in walk(recipe):
            if isinstance(part, Founder) and part not in self._founders:
                known = ", ".join(sorted(f.name for f in self._founders))
                raise MissingFounderError(
                    f"founder {part.name!r} (digest {part.digest[:12]}) is not among those given: "
                    f"{known}. If its files changed since, restore them or start a new run."
                )

    def _wholes(self, recipe: Recipe) -> dict[Recipe, dict[str, Tensor]]:
        """The tensors of the merges in ``recipe`` that see whole models, innermost first."""
        made: dict[Recipe, dict[str, Tensor]] = {}
        for part in walk(recipe):
            if not isinstance(part, Merge) or MERGES[part.method].scope != "model":
                continue
            inputs = [self._flat(r, made) for r in part.inputs]
            base = None if part.base is None else self._flat(part.base, made)
            values = self.values(part.params, "")
            flat = MERGES[part.method].function(inputs, base, values, part.seed, "")
            pieces = torch.split(flat, [s.elements for s in self._layout])
            made[part] = {
                s.name: p.view(s.shape) for s, p in zip(self._layout, pieces, strict=True)
            }
        return made

    def _flat(self, recipe: Recipe, wholes: Mapping[Recipe, Mapping[str, Tensor]]) -> Tensor:
        flat = torch.empty(self._layout.elements)
        at = 0
        for spec in self._layout:
            piece = flat[at : at + spec.elements].view(spec.shape)
            piece.copy_(_Tensors(self, spec, wholes).dense(recipe))
            at += spec.elements
        return flat

    def direction(self, noise: Noise, name: str, shape: tuple[int, ...]) -> Tensor:
        key = (noise, name)
        if key in self._noise:
            self._noise.move_to_end(key)
            return self._noise[key]
        tensor = noise_direction(noise.seed, name, shape, noise.rate, noise.rank)
        self._noise[key] = tensor
        self._noise_bytes += tensor.nbytes
        while self._noise_bytes > NOISE_CACHE_BYTES:
            self._noise_bytes -= self._noise.popitem(last=False)[1].nbytes
        return tensor


class _Tensors:
    """One tensor of a recipe and of its parts, each computed once."""

    def __init__(
        self,
        owner: Materializer,
        spec: TensorSpec,
        wholes: Mapping[Recipe, Mapping[str, Tensor]],
    ) -> None:
        self._owner = owner
        self._spec = spec
        self._wholes = wholes
        self._dense: dict[Recipe, Tensor] = {}
        self._changes: dict[Recipe, Factors | None] = {}
        self._base = owner.adapter_base

    def dense(self, recipe: Recipe) -> Tensor:
        """The tensor in float32."""
        if recipe not in self._dense:
            # Parts before what uses them, and no recursion: ancestries may be thousands deep. A part
            # that is a change of the base needs none of its own parts.
            order, needed = walk(recipe), {recipe}
            for part in reversed(order):
                if part in needed and self.factors(part) is None and part not in self._wholes:
                    needed.update(parts(part))
            for part in order:
                if part in needed and part not in self._dense:
                    self._dense[part] = self._compute(part)
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

    def _compute(self, recipe: Recipe) -> Tensor:
        name, shape = self._spec.name, self._spec.shape
        change = self.factors(recipe)
        if change is not None and self._base is not None:
            base = self._owner.founder_tensor(self._base, name)
            return base + change.dense().view(shape) if change.rank else base
        match recipe:
            case Founder():
                return self._owner.founder_tensor(recipe, name)
            case Noise():
                return self._owner.direction(recipe, name, shape)
            case Linear(terms):
                weights = [self._owner.value(c, name) for _, c in terms]
                return weighted_sum([self._dense[r] for r, _ in terms], weights)
            case Merge(method, inputs, base_recipe, params, seed):
                if recipe in self._wholes:
                    return self._wholes[recipe][name]
                return MERGES[method].function(
                    [self._dense[r] for r in inputs],
                    None if base_recipe is None else self._dense[base_recipe],
                    self._owner.values(params, name),
                    seed,
                    name,
                )
            case Route():
                raise TypeError("a path has no weights of its own: operators.path lays it")

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
