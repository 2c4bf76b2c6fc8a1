"""Recipes: how to make one model, as a small immutable expression over founders. No weights.

Two equal recipes are one individual, on every machine: a recipe's id is the SHA-256 of its
canonical JSON, in which the parts of an expression appear by their own ids. So ids, hashes and
comparisons cost the same however deep the ancestry is, and shared parts are stored once.

Weighted sums of weighted sums are flattened when they are made: crossover by averaging, mutation
and succession stay *one* sum over founders and noise, however many generations deep.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from operators.recipe.coefficients import Coefficient, Grouped, add, multiply, simplify

ParameterValue: TypeAlias = bool | str | Coefficient | tuple[Coefficient, ...]


class _Node:
    """Identity by content id, shared by all kinds of recipe."""

    __slots__ = ()
    id: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Node) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _set_id(self, node: dict[str, Any]) -> None:
        if any(isinstance(part, Route) for part in parts(self)):  # type: ignore[arg-type]
            raise ValueError("a data-flow path has no weights to sum, merge or step through")
        text = json.dumps(node, sort_keys=True, separators=(",", ":"), allow_nan=False)
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class Founder(_Node):
    """A model given at the start. ``digest`` is over its tensors: changed files change every id."""

    name: str
    digest: str
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_id(as_node(self))


@dataclass(frozen=True, slots=True, eq=False)
class Noise(_Node):
    """A random direction: N(0, 1) per element, kept with probability ``rate``.

    ``rank > 0`` gives the low-rank form A·Bᵀ/√rank for matrices (EGGROLL), which costs almost nothing
    on large models. Depends on (seed, tensor name) alone.

    Raises:
        ValueError: ``rate`` outside (0, 1], ``rank`` negative, or both a rate and a rank.
    """

    seed: int
    rate: float = 1.0
    rank: int = 0
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # One form for one value, whatever number type it came as: the id depends on it.
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "rate", float(self.rate))
        object.__setattr__(self, "rank", int(self.rank))
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"noise: rate must be in (0, 1], got {self.rate}")
        if self.rank < 0 or (self.rank and self.rate != 1.0):
            raise ValueError(f"noise: rank must be >= 0, and rate 1 with a rank, got {self.rank}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"noise: seed must be in [0, 2**63), got {self.seed}")
        self._set_id(as_node(self))


@dataclass(frozen=True, slots=True, eq=False)
class Linear(_Node):
    """A weighted sum. Make it with :func:`linear`, which flattens and orders the terms."""

    terms: tuple[tuple["Recipe", Coefficient], ...]
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_id(as_node(self))


@dataclass(frozen=True, slots=True, eq=False)
class Merge(_Node):
    """A merge of MERGES by name. Make it with :func:`operators.merge.merge`, which checks it.

    ``params`` are (name, value) sorted by name; a value that differs per input is a tuple with one
    entry for each. Opaque to flattening.
    """

    method: str
    inputs: tuple["Recipe", ...]
    base: "Recipe | None"
    params: tuple[tuple[str, ParameterValue], ...]
    seed: int = 0
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_id(as_node(self))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a data-flow path: which layer of which model, and by what its input is scaled.

    Raises:
        ValueError: ``layer`` is negative, or ``scale`` is not positive and finite (a path whose scales
            are positive is an ordinary checkpoint; see :mod:`operators.fold`).
    """

    recipe: "Recipe"
    layer: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", int(self.layer))
        object.__setattr__(self, "scale", float(self.scale))
        if self.layer < 0:
            raise ValueError(f"path: a layer is numbered from 0, got {self.layer}")
        if not (math.isfinite(self.scale) and self.scale > 0.0):
            raise ValueError(f"path: a scale must be positive and finite, got {self.scale}")


@dataclass(frozen=True, slots=True, eq=False)
class Route(_Node):
    """A data-flow path: ``embed``'s embedding, the steps' layers in order, ``head``'s norm and head.

    On entering a step the residual stream is multiplied by its scale. Steps may use founders, merged
    children, any weights: but no other path.

    Source: arXiv 2403.13187, section 3.2.

    Raises:
        ValueError: there is no step, or a part is itself a path.
    """

    embed: "Recipe"
    steps: tuple[Step, ...]
    head: "Recipe"
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("path: needs at least one step")
        self._set_id(as_node(self))


Recipe: TypeAlias = Founder | Noise | Linear | Merge | Route
Terms: TypeAlias = tuple[tuple[Recipe, Coefficient], ...]


def collect(weighted: Iterable[tuple[Recipe, Coefficient]]) -> Terms:
    """``weighted`` with sums expanded, equal recipes collected and zeros dropped, in canonical order.

    Sums of coefficients round once, so the result does not depend on the order of ``terms``. May be
    empty (a velocity of zero); :func:`linear` makes a recipe of it.

    Raises:
        ValueError: a coefficient is not finite.
    """
    collected: dict[Recipe, list[Coefficient]] = {}
    for recipe, outer in weighted:
        if not isinstance(outer, Grouped) and not math.isfinite(outer):
            raise ValueError(f"coefficient of {describe(recipe)} is {outer}; it must be finite")
        for leaf, inner in recipe.terms if isinstance(recipe, Linear) else ((recipe, 1.0),):
            collected.setdefault(leaf, []).append(multiply(outer, inner))
    summed = ((leaf, simplify(add(parts))) for leaf, parts in collected.items())
    terms = tuple(sorted((t for t in summed if t[1] != 0.0), key=lambda t: _order(t[0])))
    for leaf, total in terms:
        if not isinstance(total, Grouped) and not math.isfinite(total):
            raise ValueError(f"coefficient of {describe(leaf)} adds up to {total}")
    return terms


def linear(terms: Mapping[Recipe, Coefficient] | Iterable[tuple[Recipe, Coefficient]]) -> Recipe:
    """The weighted sum of ``terms``; a single term with coefficient 1 is that term itself.

    Raises:
        ValueError: no term is left, or a coefficient is not finite.
    """
    left = collect(terms.items() if isinstance(terms, Mapping) else terms)
    if not left:
        raise ValueError("a weighted sum needs at least one term whose coefficient is not 0")
    if len(left) == 1 and left[0][1] == 1.0:
        return left[0][0]
    return Linear(left)


def _order(recipe: Recipe) -> tuple[int, str, str]:
    # Founders by name, then merges, then noise: the order in which weights are summed.
    kind = (Founder, Linear, Merge, Noise, Route).index(type(recipe))
    return kind, recipe.name if isinstance(recipe, Founder) else "", recipe.id


def as_node(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, its parts by their ids: what the id is the digest of."""
    match recipe:
        case Founder(name, digest):
            return {"founder": name, "digest": digest}
        case Noise(seed, rate, rank):
            return {"noise": seed, "rate": rate, "rank": rank}
        case Linear(terms):
            return {"linear": [[_reference(r), _value_to_json(c)] for r, c in terms]}
        case Merge(method, inputs, base, params, seed):
            return {
                "merge": method,
                "inputs": [_reference(r) for r in inputs],
                "base": None if base is None else _reference(base),
                "params": {name: _value_to_json(v) for name, v in params},
                "seed": seed,
            }
        case Route(embed, steps, head):
            return {
                "route": [[_reference(s.recipe), s.layer, s.scale] for s in steps],
                "embed": _reference(embed),
                "head": _reference(head),
            }


def _reference(recipe: Recipe) -> dict[str, Any]:
    return as_node(recipe) if isinstance(recipe, Founder | Noise) else {"recipe": recipe.id}


def parts(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipes that ``recipe`` is directly made of; empty for founders and noise."""
    match recipe:
        case Linear(terms):
            return tuple(r for r, _ in terms)
        case Merge(_, inputs, base, _, _):
            return inputs if base is None else (*inputs, base)
        case Route(embed, steps, head):
            return tuple(dict.fromkeys((embed, *(s.recipe for s in steps), head)))
    return ()


def walk(recipe: Recipe) -> tuple[Recipe, ...]:
    """``recipe`` and everything it is made of, each once, parts before what uses them."""
    seen: dict[Recipe, None] = {}
    stack = [(recipe, False)]
    while stack:
        at, parts_done = stack.pop()
        if at in seen:
            continue
        if parts_done:
            seen[at] = None
        else:
            stack.append((at, True))
            stack.extend((part, False) for part in parts(at))
    return tuple(seen)


def _value_to_json(value: ParameterValue) -> Any:
    if isinstance(value, Grouped):
        return {"rules": [[list(r.filters), list(r.values)] for r in value.rules]}
    if isinstance(value, tuple):
        return [_value_to_json(v) for v in value]
    return value


def describe(recipe: Recipe) -> str:
    """A short text for people: ``0.5·rev + 0.5·swap``, ``ties(rev, swap)``."""
    match recipe:
        case Founder(name):
            return name
        case Noise(seed):
            return f"noise({seed})"
        case Linear(terms):
            return " + ".join(f"{_short(c)}·{describe(r)}" for r, c in terms)
        case Merge(method, inputs):
            return f"{method}({', '.join(_brief(r) for r in inputs)})"
        case Route():
            return " → ".join(_stretches(recipe))


def _stretches(route: Route) -> list[str]:
    """``rev[0:3]``: runs of neighbouring layers of one model, with the scale where it is not 1."""
    found: list[tuple[str, int, int, float]] = []
    for step in route.steps:
        name = _brief(step.recipe)
        if found and step.scale == 1.0 and found[-1][0] == name and found[-1][2] == step.layer:
            found[-1] = (name, found[-1][1], step.layer + 1, found[-1][3])
        else:
            found.append((name, step.layer, step.layer + 1, step.scale))
    return [
        (f"{n}[{a}]" if b == a + 1 else f"{n}[{a}:{b}]") + ("" if s == 1.0 else f"×{s:.3g}")
        for n, a, b, s in found
    ]


def _brief(recipe: Recipe) -> str:
    return recipe.name if isinstance(recipe, Founder) else recipe.id[:12]


def _short(coefficient: Coefficient) -> str:
    return "[by layer]" if isinstance(coefficient, Grouped) else f"{coefficient:.3g}"
