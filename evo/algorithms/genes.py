"""Genes: the parameters of one merge method, or of several, as a vector; and a vector as a recipe.

A gene is one number of one parameter: for one founder where the parameter takes one number for each
input, for one group of layers and for one tensor filter. Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.merge import merge
from operators.merge.table import MergeMethod
from operators.recipe import Founder, Merge, ParameterValue, Recipe, linear
from operators.recipe.coefficients import Coefficient, Grouped, Rule, multiply

Vector = NDArray[np.float64]
Range = tuple[float, float]
MASK, METHOD = "(mask)", "(method)"  # genes that are not parameters of a merge


@dataclass(frozen=True, slots=True)
class ParameterGenes:
    """The genes of one parameter: an array of shape (inputs, columns) within the vector.

    ``inputs`` and ``columns`` are 1 where the parameter does not differ by founder, or by place.
    """

    name: str
    inputs: int
    columns: int
    range: Range
    start: float
    integer: bool = False

    @property
    def width(self) -> int:
        return self.inputs * self.columns


@dataclass(frozen=True, slots=True)
class MethodGenes:
    """One method: its fixed parameters, and the range of each parameter that is searched."""

    entry: MergeMethod
    fixed: tuple[tuple[str, ParameterValue], ...]
    ranges: tuple[tuple[str, Range], ...]


@dataclass(frozen=True, slots=True)
class GeneSpace:
    """The genes of one method over ``founders``, or of several. A point is a vector of shape (genes,).

    The columns of a parameter are its filters, in order and the default last, each with its layer
    groups from the first to the last. Parameters of one name are shared by all methods that have them,
    and a whole-number gene says which method it is.
    """

    methods: tuple[MethodGenes, ...]
    founders: tuple[Recipe, ...]
    base: Founder
    seed: int
    layer_groups: int
    filters: tuple[str, ...]
    parts: tuple[ParameterGenes, ...]

    @property
    def size(self) -> int:
        return sum(p.width for p in self.parts)

    @property
    def low(self) -> Vector:
        return self._each(lambda p: p.range[0])

    @property
    def high(self) -> Vector:
        return self._each(lambda p: p.range[1])

    @property
    def steps(self) -> Vector:
        """1 for genes that are whole numbers, 0 for the others."""
        return self._each(lambda p: float(p.integer))

    @property
    def names(self) -> tuple[str, ...]:
        """Such as ``weight[swap]``, ``density[swap] mlp 2/4``."""
        places = [
            f" {f} {g + 1}/{self.layer_groups}".removesuffix(" 1/1")
            for f in (*self.filters, "rest" if self.filters else "layers")
            for g in range(self.layer_groups)
        ]
        return tuple(
            part.name + of + place
            for part in self.parts
            for of in ([f"[{_name(f)}]" for f in self.founders] if part.inputs > 1 else [""])
            for place in (places if part.columns > 1 else [""])
        )

    @property
    def unit_steps(self) -> Vector:
        """The least change of each gene in the unit cube, 0 for genes that are not whole numbers."""
        return self.steps / (self.high - self.low)

    def from_unit(self, point: Vector) -> Vector:
        """From the unit cube to the genes' ranges."""
        low, high = self.low, self.high
        return low + np.clip(point, 0.0, 1.0) * (high - low)

    def to_unit(self, x: Vector) -> Vector:
        low, high = self.low, self.high
        return np.asarray((x - low) / (high - low), dtype=np.float64)

    def decode(self, x: Vector) -> Recipe:
        """The merge at ``x``, of shape (genes,), clipped to the ranges.

        ``task_arithmetic`` without normalisation becomes a plain weighted sum: sums of sums stay one
        sum, which is built in one pass.
        """
        arrays = self.values(x)
        method = self.methods[int(arrays[METHOD][0, 0]) if METHOD in arrays else 0]
        entry, params = method.entry, dict(method.fixed)
        for name, (low, high) in method.ranges:
            numbers = tuple(self._coefficient(row) for row in np.clip(arrays[name], low, high))
            parameter = entry.parameter(name)
            params[name] = numbers if parameter and parameter.per_input else numbers[0]
        mask = int(arrays[MASK][0, 0]) if MASK in arrays else 0
        made = merge(
            entry.name,
            self.founders,
            base=None if entry.base == "none" else self.base,
            params=params,
            seed=(self.seed + mask) % 2**63,
        )
        return _as_sum(made)

    def values(self, x: Vector) -> dict[str, NDArray[np.float64]]:
        """The genes by parameter, each of shape (inputs, columns), within their ranges."""
        inside = np.clip(x, self.low, self.high)
        inside = np.where(self.steps > 0, np.rint(inside), inside)
        made, at = {}, 0
        for part in self.parts:
            made[part.name] = inside[at : at + part.width].reshape(part.inputs, part.columns)
            at += part.width
        return made

    def encode(self, values: Mapping[str, NDArray[np.float64]]) -> Vector:
        """The point with ``values`` by parameter, each of a shape that broadcasts to (inputs, columns).

        Parameters that are not given take the value at which a search starts. Names that are no genes
        here are ignored, so a point of one space gives a start in another with finer layer groups.
        """
        pieces = []
        for part in self.parts:
            value = values.get(part.name, np.array(part.start))
            pieces.append(np.clip(np.broadcast_to(value, (part.inputs, part.columns)), *part.range))
        return np.concatenate([p.reshape(-1) for p in pieces])

    def _coefficient(self, row: Vector) -> Coefficient:
        if len(row) == 1:
            return float(row[0])
        tables = row.reshape(-1, self.layer_groups).tolist()
        names = [(f,) for f in self.filters] + [()]
        return Grouped(tuple(Rule(f, tuple(v)) for f, v in zip(names, tables, strict=True)))

    def _each(self, number: Callable[[ParameterGenes], float]) -> Vector:
        return np.concatenate([np.full(p.width, number(p)) for p in self.parts])


def _as_sum(made: Recipe) -> Recipe:
    """θ_b + λ·Σ wᵢ(θᵢ − θ_b) of a ``task_arithmetic`` that does not normalise; others as they are."""
    if not isinstance(made, Merge) or made.method != "task_arithmetic":
        return made
    params = dict(made.params)
    match params["weight"], params["lambda"], params["normalize"], made.base:
        case tuple(weights), float() | Grouped() as scale, False, base if base is not None:
            terms: list[tuple[Recipe, Coefficient]] = [(base, 1.0)]
            for founder, weight in zip(made.inputs, weights, strict=True):
                share = multiply(scale, weight)
                terms += [(founder, share), (base, multiply(-1.0, share))]
            return linear(terms)
    return made


def _name(model: Recipe) -> str:
    return model.name if isinstance(model, Founder) else model.id[:12]
