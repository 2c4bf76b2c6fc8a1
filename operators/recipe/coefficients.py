"""Coefficients: one number for a whole model, or numbers per layer group and tensor filter.

A coefficient is a ``float``, or ``Grouped`` rules such as "attention tensors take 0.2 in the lower
half of the layers and 0.9 in the upper half, all other tensors take 0.5". Both can be added and
multiplied, so a weighted sum of weighted sums stays one weighted sum.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from operators.recipe.layers import layer_count, layer_group


@dataclass(frozen=True, slots=True)
class Rule:
    """``values[g]`` for layer group ``g``, for tensors whose names contain all ``filters``.

    :func:`operators.recipe.layers.layer_group` says which group a tensor belongs to.

    Raises:
        ValueError: there is no value, or one is not finite.
    """

    filters: tuple[str, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(v) for v in self.values):
            raise ValueError(f"a coefficient needs one or more finite values, got {self.values}")

    def matches(self, tensor: str) -> bool:
        return all(f in tensor for f in self.filters)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Rules in order; the first that matches a tensor's name decides. The last matches every name.

    Raises:
        ValueError: the last rule has a filter, so some tensor could have no value.
    """

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not self.rules or self.rules[-1].filters:
            raise ValueError(
                "the last rule of a coefficient must have no filter (it is the default)"
            )


Coefficient: TypeAlias = float | Grouped


def value_at(coefficient: Coefficient, tensor: str, layers: int) -> float:
    """The number that holds for ``tensor`` in a model of ``layers`` layers."""
    if not isinstance(coefficient, Grouped):
        return coefficient
    rule = next(r for r in coefficient.rules if r.matches(tensor))
    return rule.values[layer_group(tensor, layers, len(rule.values))]


class Places:
    """The tensors of one model, to evaluate a coefficient at all of them at once.

    Args:
        tensors: names, in the order of the results.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        self._tensors = tuple(tensors)
        self._layers = layer_count(tensors)
        self._groups: dict[int, NDArray[np.int64]] = {}
        self._matching: dict[tuple[str, ...], NDArray[np.bool_]] = {}

    def values(self, coefficient: Coefficient) -> NDArray[np.float64]:
        """:func:`value_at` of each tensor, shape ``(tensors,)``."""
        if not isinstance(coefficient, Grouped):
            return np.full(len(self._tensors), coefficient)
        made = np.empty(len(self._tensors))
        for rule in reversed(coefficient.rules):  # the first that matches is written last
            groups = np.array(rule.values)[self._group_of_each(len(rule.values))]
            np.copyto(made, groups, where=self._matches(rule))
        return made

    def _group_of_each(self, groups: int) -> NDArray[np.int64]:
        if groups not in self._groups:
            found = [layer_group(t, self._layers, groups) for t in self._tensors]
            self._groups[groups] = np.array(found, dtype=np.int64)
        return self._groups[groups]

    def _matches(self, rule: Rule) -> NDArray[np.bool_]:
        if rule.filters not in self._matching:
            found = [rule.matches(t) for t in self._tensors]
            self._matching[rule.filters] = np.array(found, dtype=np.bool_)
        return self._matching[rule.filters]


def gradient(values: Sequence[float], layers: int) -> tuple[float, ...]:
    """``values`` interpolated to one number for each of ``layers`` layers, as mergekit reads a list.

    The first value is at the first layer and the last at the last. mergekit gives the first value to all
    tensors outside the layers.

    Raises:
        ValueError: ``values`` is empty.
    """
    if not values:
        raise ValueError("a list of values over layers needs at least one")
    steps = len(values) - 1
    made = []
    for layer in range(max(1, layers)):
        # Multiplied before dividing: as many values as layers give back just these values.
        place, rest = divmod(layer * steps, max(1, layers - 1))
        share = rest / max(1, layers - 1)
        upper = values[min(place + 1, steps)]
        made.append(values[place] if rest == 0 else (1.0 - share) * values[place] + share * upper)
    return tuple(float(v) for v in made)


def simplify(coefficient: Coefficient) -> Coefficient:
    """A smaller form of the same: fewest groups, no rule that changes nothing, a float if constant."""
    if not isinstance(coefficient, Grouped):
        return float(coefficient) + 0.0  # -0.0 and 0.0 are one coefficient
    rules: list[Rule] = []
    for rule in coefficient.rules:
        if any(set(earlier.filters) <= set(rule.filters) for earlier in rules):
            continue  # never reached: an earlier rule takes every tensor that this one matches
        rules.append(Rule(tuple(sorted(set(rule.filters))), _fewest_groups(rule.values)))
    while len(rules) > 1 and rules[-2].values == rules[-1].values:
        del rules[-2]  # the default says the same
    if len(rules) == 1 and len(rules[0].values) == 1:
        return rules[0].values[0]
    return Grouped(tuple(rules))


def _fewest_groups(values: tuple[float, ...]) -> tuple[float, ...]:
    """(1, 1, 2, 2) is (1, 2): both split any number of layers at the same places."""
    count = len(values)
    clean = tuple(v + 0.0 for v in values)
    for groups in range(1, count):
        size = count // groups
        if count % groups == 0 and all(clean[i] == clean[i - i % size] for i in range(count)):
            return clean[::size]
    return clean


def _as_rules(coefficient: Coefficient) -> tuple[Rule, ...]:
    if isinstance(coefficient, Grouped):
        return coefficient.rules
    return (Rule((), (float(coefficient),)),)


def multiply(a: Coefficient, b: Coefficient) -> Coefficient:
    """The product, tensor by tensor. Group counts are refined to their least common multiple."""
    if not isinstance(a, Grouped) and not isinstance(b, Grouped):
        return a * b
    return _combine([a, b], math.prod)


def add(coefficients: Iterable[Coefficient]) -> Coefficient:
    """The sum, tensor by tensor; exactly rounded, so that the order of terms does not matter."""
    terms = list(coefficients)
    plain = [t for t in terms if not isinstance(t, Grouped)]
    if len(plain) == len(terms):
        return _sum(plain)
    return _combine(terms, _sum)


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError as error:
        raise ValueError(f"coefficients too large to add up: {values}") from error


def _combine(terms: list[Coefficient], operation: Callable[[list[float]], float]) -> Coefficient:
    # Rules are refined pairwise to (all filters of both): the first match in the product order is
    # the pair of first matches. Values stay lists until the end, so that sums round once.
    rules: list[tuple[tuple[str, ...], list[tuple[float, ...]]]] = [((), [])]
    for term in terms:
        refined: list[tuple[tuple[str, ...], list[tuple[float, ...]]]] = []
        for filters, values in rules:
            for rule in _as_rules(term):
                merged = tuple(sorted({*filters, *rule.filters}))
                if not any(set(f) <= set(merged) for f, _ in refined):
                    refined.append((merged, [*values, rule.values]))
        rules = refined
    combined = []
    for filters, values in rules:
        groups = math.lcm(*(len(v) for v in values))
        combined.append(
            Rule(
                filters,
                tuple(operation([v[g * len(v) // groups] for v in values]) for g in range(groups)),
            )
        )
    return simplify(Grouped(tuple(combined)))
