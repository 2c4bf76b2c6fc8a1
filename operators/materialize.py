"""Recipe + founders -> weights. Accumulates in float32, casts once at the end."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from operators.coefficients import Coefficient, layer_count, value_at
from operators.merge import MERGES
from operators.merge.linear import weighted_sum
from operators.merge.table import Number, Values
from operators.noise import direction
from operators.recipe import Founder, Linear, Merge, Noise, ParameterValue, Recipe, walk
from operators.weights import Layout, Weights, allocate

NOISE_CACHE_BYTES = 256 * 2**20


class MissingFounderError(ValueError):
    """A recipe names a founder that is not at hand, or whose tensors have changed."""


class Materializer:
    """Builds the weights of recipes over one set of founders.

    Holds the founders (by digest) and the noise directions used last, since parents and children
    share most of theirs. Not thread-safe: one for each host.
    """

    def __init__(self, layout: Layout, founders: Mapping[Founder, Weights]) -> None:
        self._layout = layout
        self._layers = layer_count(layout.names)
        self._founders = dict(founders)
        self._noise: OrderedDict[tuple[Noise, str], Tensor] = OrderedDict()
        self._noise_bytes = 0

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
        order = walk(recipe)
        for part in order:
            if isinstance(part, Founder) and part not in self._founders:
                known = ", ".join(sorted(f.name for f in self._founders))
                raise MissingFounderError(
                    f"founder {part.name!r} (digest {part.digest[:12]}) is not among those given: "
                    f"{known}. If its files changed since, restore them or start a new run."
                )
        weights = allocate(self._layout) if out is None else out
        with torch.inference_mode():
            for spec in self._layout:
                made: dict[Recipe, Tensor] = {}
                for part in order:
                    made[part] = self._tensor(part, spec.name, spec.shape, made)
                weights[spec.name].copy_(made[recipe])
        return weights

    def _tensor(
        self, recipe: Recipe, name: str, shape: tuple[int, ...], made: Mapping[Recipe, Tensor]
    ) -> Tensor:
        match recipe:
            case Founder():
                return self._founders[recipe][name].float()
            case Noise():
                return self._direction(recipe, name, shape)
            case Linear(terms):
                return weighted_sum(
                    [made[r] for r, _ in terms],
                    [value_at(c, name, self._layers) for _, c in terms],
                )
            case Merge(method, inputs, base, params, seed):
                values = Values({k: self._value(v, name) for k, v in params})
                return MERGES[method].function(
                    [made[r] for r in inputs],
                    None if base is None else made[base],
                    values,
                    seed,
                    name,
                )

    def _value(self, value: ParameterValue, name: str) -> Number | tuple[float, ...]:
        def at(coefficient: Coefficient) -> float:
            return value_at(coefficient, name, self._layers)

        if isinstance(value, bool | str):
            return value
        return tuple(map(at, value)) if isinstance(value, tuple) else at(value)

    def _direction(self, noise: Noise, name: str, shape: tuple[int, ...]) -> Tensor:
        key = (noise, name)
        if key in self._noise:
            self._noise.move_to_end(key)
            return self._noise[key]
        tensor = direction(noise.seed, name, shape, noise.rate, noise.rank)
        self._noise[key] = tensor
        self._noise_bytes += tensor.nbytes
        while self._noise_bytes > NOISE_CACHE_BYTES:
            self._noise_bytes -= self._noise.popitem(last=False)[1].nbytes
        return tensor
