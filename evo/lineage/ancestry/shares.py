"""How much of each founder is in an individual, by layer: read off its recipe, without any weights.

What is exact and what is not:

- A weighted sum's shares are its coefficients, layer by layer: exact, however many generations deep.
- Noise has the weight of its coefficient, which is the standard deviation of what it adds to every
  element. A founder's weight multiplies tensors of another size, so the two compare only roughly.
- A merge that is no weighted sum (TIES, DARE, ...) is counted as if it were one, by its parameter
  ``weight``, or equally where it has none: what it trims, drops or elects can't be read off a recipe.
  SLERP of t counts as 1 - t and t. Where a merge adds differences from a base, the base is not counted
  (unless it is an input too).
- "embedding" and "head" stand for the tensors that are named so (``embed_tokens``, ``lm_head``), with
  the final norm counted to the head. Within a layer, a tensor filter's row is what holds for tensors
  that the filter matches, and the row without a filter what holds for those that no filter matches.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import pyarrow as pa

from operators.recipe import Founder, Linear, Merge, Noise, ParameterValue, Recipe, Route, walk
from operators.recipe.coefficients import Grouped, value_at

NOISE = "noise"
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"

SCHEMA = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("filter", pa.string(), nullable=False),
        pa.field("founder", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Some tensors that have the same coefficients: ``tensor`` stands for them."""

    group: str
    filter: str
    tensor: str
    recipe: Recipe


def founder_shares(recipe: Recipe, layers: int | None) -> pa.Table:
    """A row for each place and founder: group, filter, founder, weight, share.

    ``group`` is "embedding", "layer 0", ..., "head"; of a path "step 0: layer 3" with the step's own
    layer. ``weight`` is signed; ``share`` is of the sum of |weight| in the group and filter.

    ``layers`` is how many a founder has; 0 for models without layers, whose one group is "model". Where
    it is None, there are as many as the recipe has groups of layers.
    """
    if layers is None:
        layers = _groups(recipe)
    known: dict[tuple[str, str], dict[str, float]] = {}
    rows: list[tuple[str, str, str, float, float]] = []
    for place in _places(recipe, layers):
        weights = _weights(place.recipe, place.tensor, max(1, layers), known)
        total = sum(abs(w) for w in weights.values())
        rows += [
            (place.group, place.filter, name, weight, abs(weight) / total if total else 0.0)
            for name, weight in weights.items()
        ]
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def _places(recipe: Recipe, layers: int) -> Iterator[_Place]:
    filters = _filters(recipe)
    if isinstance(recipe, Route):
        yield _Place("embedding", "", _EMBEDDING, recipe.embed)
        for number, step in enumerate(recipe.steps):
            for each in filters:
                tensor = _in_layer(step.layer, each)
                yield _Place(
                    f"step {number}: layer {step.layer}", " ".join(each), tensor, step.recipe
                )
        yield _Place("head", "", _HEAD, recipe.head)
    elif layers:
        yield _Place("embedding", "", _EMBEDDING, recipe)
        for layer in range(layers):
            for each in filters:
                yield _Place(f"layer {layer}", " ".join(each), _in_layer(layer, each), recipe)
        yield _Place("head", "", _HEAD, recipe)
    else:
        for each in filters:
            yield _Place("model", " ".join(each), ".".join(each), recipe)


def _in_layer(layer: int, filters: Sequence[str]) -> str:
    """A name that lies in the layer and matches these filters and, by its make, few others."""
    return f"layers.{layer}.{'.'.join(filters)}"


def _weights(
    recipe: Recipe, tensor: str, layers: int, known: dict[tuple[str, str], dict[str, float]]
) -> dict[str, float]:
    """Each founder's weight in ``tensor``."""
    match recipe:
        case Founder(name):
            return {name: 1.0}
        case Noise():
            return {NOISE: 1.0}
    key = recipe.id, tensor
    if key not in known:
        total: defaultdict[str, float] = defaultdict(float)
        for part, outer in _terms(recipe, tensor, layers):
            for name, inner in _weights(part, tensor, layers, known).items():
                total[name] += outer * inner
        known[key] = dict(total)
    return known[key]


def _terms(recipe: Recipe, tensor: str, layers: int) -> list[tuple[Recipe, float]]:
    match recipe:
        case Linear(terms):
            return [(part, value_at(c, tensor, layers)) for part, c in terms]
        case Merge(method, inputs, _, params):
            numbers = _merge_weights(method, len(inputs), dict(params), tensor, layers)
            return list(zip(inputs, numbers, strict=True))
    raise TypeError(f"{type(recipe).__name__} is no sum")


def _merge_weights(
    method: str, inputs: int, params: Mapping[str, ParameterValue], tensor: str, layers: int
) -> list[float]:
    if method == "slerp" and inputs == 2:
        t = _number(params["t"], tensor, layers)
        return [1.0 - t, t]
    given = params.get("weight", 1.0)
    each = given if isinstance(given, tuple) else (given,) * inputs
    weights = [_number(value, tensor, layers) for value in each]
    if params.get("normalize") is True and abs(sum(weights)) > 1e-8:
        weights = [w / sum(weights) for w in weights]
    scale = _number(params.get("lambda", 1.0), tensor, layers)
    return [w * scale for w in weights]


def _number(value: ParameterValue, tensor: str, layers: int) -> float:
    if isinstance(value, Grouped | int | float):
        return value_at(value, tensor, layers)
    raise TypeError(f"{value!r} is no coefficient")


def _filters(recipe: Recipe) -> list[tuple[str, ...]]:
    """The filters of all coefficients that can match within a layer, in order, and none."""
    found = dict.fromkeys(r.filters for c in _grouped(recipe) for r in c.rules if r.filters)
    outside = (_EMBEDDING, _HEAD)
    return [(), *(f for f in found if not any(all(p in name for p in f) for name in outside))]


def _groups(recipe: Recipe) -> int:
    return lcm(*(len(r.values) for c in _grouped(recipe) for r in c.rules))


def _grouped(recipe: Recipe) -> Iterator[Grouped]:
    for part in walk(recipe):
        values: Iterable[ParameterValue] = ()
        match part:
            case Linear(terms):
                values = [c for _, c in terms]
            case Merge(params=params):
                values = [v for _, p in params for v in (p if isinstance(p, tuple) else (p,))]
        yield from (v for v in values if isinstance(v, Grouped))
