"""Recipes as JSON text, and back."""

import json
from collections.abc import Mapping
from typing import Any

from operators.recipe import (
    Founder,
    Linear,
    Merge,
    Noise,
    ParameterValue,
    Recipe,
    Route,
    Step,
    as_node,
    walk,
)
from operators.recipe.coefficients import Coefficient, Grouped, Rule


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON text; parts that are sums or merges stand once, in ``where``, by id."""
    node = as_node(recipe)
    where = {r.id: as_node(r) for r in walk(recipe)[:-1] if isinstance(r, Linear | Merge)}
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
                case {"route": list(steps), "embed": embed, "head": head}:
                    return Route(
                        part(embed),
                        tuple(Step(part(r), int(n), float(s)) for r, n, s in steps),
                        part(head),
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
    references += [r for r, _, _ in node.get("route", ())]
    references += [node[k] for k in ("base", "embed", "head") if node.get(k) is not None]
    return {r["recipe"] for r in references if "recipe" in r}


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
