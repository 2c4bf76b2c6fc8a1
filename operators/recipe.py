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

from operators.coefficients import Coefficient, Grouped, Rule, add, multiply, simplify

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
        text = json.dumps(node, sort_keys=True, separators=(",", ":"), allow_nan=False)
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class Founder(_Node):
    """A model given at the start. ``digest`` is over its tensors: changed files change every id."""

    name: str
    digest: str
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_id(_node(self))


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
        self._set_id(_node(self))


@dataclass(frozen=True, slots=True, eq=False)
class Linear(_Node):
    """A weighted sum. Make it with :func:`linear`, which flattens and orders the terms."""

    terms: tuple[tuple["Recipe", Coefficient], ...]
    id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_id(_node(self))


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
        self._set_id(_node(self))


Recipe: TypeAlias = Founder | Noise | Linear | Merge
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
    kind = (Founder, Linear, Merge, Noise).index(type(recipe))
    return kind, recipe.name if isinstance(recipe, Founder) else "", recipe.id


def _node(recipe: Recipe) -> dict[str, Any]:
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


def _reference(recipe: Recipe) -> dict[str, Any]:
    return _node(recipe) if isinstance(recipe, Founder | Noise) else {"recipe": recipe.id}


def parts(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipes that ``recipe`` is directly made of; empty for founders and noise."""
    match recipe:
        case Linear(terms):
            return tuple(r for r, _ in terms)
        case Merge(_, inputs, base, _, _):
            return inputs if base is None else (*inputs, base)
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


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON text; parts that are sums or merges stand once, in ``where``, by id."""
    node = _node(recipe)
    where = {r.id: _node(r) for r in walk(recipe)[:-1] if isinstance(r, Linear | Merge)}
    if where:
        node["where"] = where
    return json.dumps(node, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Recipe:
    """The recipe that :func:`to_json` wrote.

    Raises:
        ValueError: ``text`` is no recipe; the message shows its beginning.
    """
    try:
        data = json.loads(text)
        where: Mapping[str, Any] = data.get("where", {})
        known: dict[str, Recipe] = {}

        def part(reference: Mapping[str, Any]) -> Recipe:
            return known[reference["recipe"]] if "recipe" in reference else read(reference)

        def read(node: Mapping[str, Any]) -> Recipe:
            match node:
                case {"founder": str(name), "digest": str(digest)}:
                    return Founder(name, digest)
                case {"noise": int(seed), "rate": rate, "rank": int(rank)}:
                    return Noise(seed, float(rate), rank)
                case {"linear": list(terms)}:
                    return Linear(tuple((part(r), _coefficient_from_json(c)) for r, c in terms))
                case {"merge": str(method), "inputs": list(inputs), "params": dict(params)}:
                    base = node["base"]
                    return Merge(
                        method,
                        tuple(part(r) for r in inputs),
                        None if base is None else part(base),
                        tuple(sorted((k, _value_from_json(v)) for k, v in params.items())),
                        int(node["seed"]),
                    )
                case _:
                    raise ValueError("unknown kind of node")

        # JSON objects keep no order that we may rely on: read the parts that are ready, repeatedly.
        waiting = dict(where)
        while waiting:
            ready = {k: n for k, n in waiting.items() if _needs(n) <= known.keys()}
            if not ready:
                raise ValueError("its parts refer to each other or to missing ones")
            known |= {k: read(n) for k, n in ready.items()}
            waiting = {k: n for k, n in waiting.items() if k not in ready}
        return read(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a recipe ({error}): {text[:200]}") from error


def _needs(node: Mapping[str, Any]) -> set[str]:
    references = [r for r, _ in node.get("linear", ())] + list(node.get("inputs", ()))
    if node.get("base") is not None:
        references.append(node["base"])
    return {r["recipe"] for r in references if "recipe" in r}


def _value_to_json(value: ParameterValue) -> Any:
    if isinstance(value, Grouped):
        return {"rules": [[list(r.filters), list(r.values)] for r in value.rules]}
    if isinstance(value, tuple):
        return [_value_to_json(v) for v in value]
    return value


def _coefficient_from_json(data: Any) -> Coefficient:
    if isinstance(data, dict):
        return Grouped(tuple(Rule(tuple(f), tuple(map(float, v))) for f, v in data["rules"]))
    return float(data)


def _value_from_json(data: Any) -> ParameterValue:
    if isinstance(data, bool | str):
        return data
    if isinstance(data, list):
        return tuple(_coefficient_from_json(v) for v in data)
    return _coefficient_from_json(data)


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


def _brief(recipe: Recipe) -> str:
    return recipe.name if isinstance(recipe, Founder) else recipe.id[:12]


def _short(coefficient: Coefficient) -> str:
    return "[by layer]" if isinstance(coefficient, Grouped) else f"{coefficient:.3g}"
