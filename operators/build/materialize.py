"""Recipes + founders -> weights. Accumulates in float32, casts once at the end."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final

import torch
from torch import Tensor

from operators.build.one_tensor import OneTensor, Wholes
from operators.build.packed import MOST_ELEMENTS, Packed, Vector
from operators.errors import EvoError
from operators.merge import MERGES
from operators.merge.table import Number, Values
from operators.recipe import Founder, Linear, Merge, Noise, ParameterValue, Recipe, walk
from operators.recipe.coefficients import Coefficient, value_at
from operators.recipe.layers import layer_count
from operators.tensors.low_rank import Adapter, Factors, no_change
from operators.tensors.noise import direction as noise_direction
from operators.tensors.threads import in_threads
from operators.tensors.weights import Layout, Weights, allocate

NOISE_CACHE_BYTES = 256 * 2**20


class MissingFounderError(EvoError):
    """A recipe names a founder that is not at hand, or whose tensors have changed."""


class Materializer:
    """Builds the weights of recipes over one set of founders: whole models, or adapters of one base.

    Holds the founders (by digest) and the noise directions used last, since parents and children
    share most of theirs. Uses as many threads as torch has; not to be used by several: one for each host.
    """

    def __init__(self, layout: Layout, founders: Mapping[Founder, Weights | Adapter]) -> None:
        self._layout = layout
        self._layers = layer_count(layout.names)
        self._founders = dict(founders)
        self._noise: OrderedDict[tuple[Noise, str], Tensor] = OrderedDict()
        self._noise_bytes = 0
        self._noise_lock = Lock()
        bases = {a.base for a in founders.values() if isinstance(a, Adapter)}
        if len(bases) > 1:
            raise ValueError("the adapters have different bases")
        self.adapter_base: Final = next(iter(bases), None)
        small = layout.elements <= MOST_ELEMENTS and self.adapter_base is None
        self._packed = Packed(layout) if small else None
        self._joined: dict[Founder, Vector] = {}

    @property
    def layout(self) -> Layout:
        return self._layout

    def build(self, recipe: Recipe, out: Weights | None = None) -> Weights:
        """The weights of ``recipe``, written into ``out`` (made if None) in the layout's dtypes.

        Each tensor is computed alone, in float32, in the recipe's canonical order of terms: the same
        recipe gives the same bits, whatever was built before or beside it.

        Raises:
            MissingFounderError: the recipe names a founder that is not here.
        """
        return self.build_all([recipe], None if out is None else [out])[0]

    def build_all(
        self, recipes: Sequence[Recipe], outs: Sequence[Weights] | None = None
    ) -> tuple[Weights, ...]:
        """The weights of ``recipes``, each as :meth:`build` makes it, in one pass over the founders.

        Weighted sums read every founder once, whatever their number; a merge that several recipes hold
        is made once. ``outs`` are as many weights, none of them twice.

        Raises:
            MissingFounderError: a recipe names a founder that is not here.
        """
        for recipe in recipes:
            self._check_founders(recipe)
        made = tuple(allocate(self._layout) for _ in recipes) if outs is None else tuple(outs)
        if len(made) != len(recipes):
            raise ValueError(f"{len(recipes)} recipes, but weights for {len(made)}")
        left = [i for i, recipe in enumerate(recipes) if not self._written(recipe, made[i])]
        if left:
            self._build_by_tensor([recipes[i] for i in left], [made[i] for i in left])
        return made

    def _build_by_tensor(self, recipes: Sequence[Recipe], outs: Sequence[Weights]) -> None:
        with torch.inference_mode():
            wholes = self._wholes(recipes)
        in_threads(
            work
            for spec in self._layout
            for work in OneTensor(self, spec, wholes).work(recipes, [w[spec.name] for w in outs])
        )

    def _written(self, recipe: Recipe, out: Weights) -> bool:
        """Whether ``recipe`` was a sum of founders and noise of a small model, and is in ``out`` now."""
        if self._packed is None or not isinstance(recipe, Linear):
            return False
        leaves = [part for part, _ in recipe.terms if isinstance(part, Founder | Noise)]
        if len(leaves) < len(recipe.terms):
            return False
        with torch.inference_mode():
            sources = {leaf: self._vector(self._packed, leaf) for leaf in leaves}
            self._packed.write(recipe, sources, out)
        return True

    def _vector(self, packed: Packed, part: Founder | Noise) -> Vector:
        if isinstance(part, Noise):
            return self._kept((part, ""), lambda: packed.joined(self._noise_of(part))).numpy()
        if part not in self._joined:
            model = self._founders[part]
            if isinstance(model, Adapter):
                raise TypeError("an adapter has factors, not tensors")
            self._joined[part] = packed.joined(model.tensors).numpy()
        return self._joined[part]

    def _noise_of(self, noise: Noise) -> Mapping[str, Tensor]:
        return {
            s.name: noise_direction(noise.seed, s.name, s.shape, noise.rate, noise.rank)
            for s in self._layout
        }

    def factors(self, recipe: Recipe) -> dict[str, Factors] | None:
        """``recipe`` as a change of its adapters' base: factors by name of tensor, rank 0 left out.

        None where it is not a change of low rank: it holds whole models, full-rank noise, or a merge
        that needs the tensors themselves.
        """
        self._check_founders(recipe)
        made = {}
        with torch.inference_mode():
            for spec in self._layout:
                found = OneTensor(self, spec, {}).factors(recipe)
                if found is None:
                    return None
                if found.rank:
                    made[spec.name] = found
        return made

    # What the tensors of a recipe need to know of the founders.

    def founder_tensor(self, founder: Founder, name: str) -> Tensor | None:
        """A founder's tensor as it is stored; None if the founder is an adapter, which has factors."""
        model = self._founders[founder]
        return None if isinstance(model, Adapter) else model[name]

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

    def _wholes(self, recipes: Sequence[Recipe]) -> Wholes:
        """The tensors of the merges in ``recipes`` that see whole models, innermost first."""
        made: dict[Recipe, dict[str, Tensor]] = {}
        for part in (p for recipe in recipes for p in walk(recipe)):
            if not isinstance(part, Merge) or MERGES[part.method].scope != "model" or part in made:
                continue
            inputs = [self._flat(r, made) for r in part.inputs]
            base = None if part.base is None else self._flat(part.base, made)
            values = self.values(part.params, "")
            flat = MERGES[part.method].function(inputs, base, values, part.seed, "")
            made[part] = self._split(flat)
        return made

    def _flat(self, recipe: Recipe, wholes: Wholes) -> Tensor:
        flat = torch.empty(self._layout.elements)
        for spec, piece in zip(self._layout, self._split(flat).values(), strict=True):
            OneTensor(self, spec, wholes).write(recipe, piece)
        return flat

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(flat, [s.elements for s in self._layout])
        return {s.name: p.view(s.shape) for s, p in zip(self._layout, pieces, strict=True)}

    def direction(self, noise: Noise, name: str, shape: tuple[int, ...]) -> Tensor:
        """One tensor of ``noise``; by any thread."""
        return self._kept(
            (noise, name),
            lambda: noise_direction(noise.seed, name, shape, noise.rate, noise.rank),
        )

    def _kept(self, key: tuple[Noise, str], make: Callable[[], Tensor]) -> Tensor:
        with self._noise_lock:
            if key in self._noise:
                self._noise.move_to_end(key)
                return self._noise[key]
        tensor = make()
        with self._noise_lock:
            self._noise[key] = tensor
            self._noise_bytes += tensor.nbytes
            while self._noise_bytes > NOISE_CACHE_BYTES:
                self._noise_bytes -= self._noise.popitem(last=False)[1].nbytes
        return tensor
