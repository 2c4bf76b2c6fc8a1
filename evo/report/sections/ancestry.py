"""The winner's family: its ancestors, laid out so that few lines cross."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from evo.report.contract import FamilyFacts, FamilyNode
from evo.report.data.run_data import NEAREST as NODES
from evo.report.data.run_data import RunData
from evo.report.sections.composition import founders_of
from fitness.splits import DEV

SWEEPS = 12
NO_FAMILY: Final[FamilyFacts] = {"nodes": [], "edges": [], "left_out": 0}


def family(data: RunData) -> FamilyFacts:
    """The nearest ancestors, and all founders among them.

    Parents are as recorded: in searches over recipes and paths whose neighbour a child is, and not what
    it was made from. So a child also gets an edge from each founder that is in it and in no parent.

    Raises:
        EvoError: a file of recipes is damaged.
    """
    made_of = {
        i: [f for f in founders_of(recipe) if f in data.founders]
        for i, recipe in data.recipes(data.ancestors[:NODES]).items()
    }
    entered = {
        i: founders
        for i, own in made_of.items()
        if i not in data.founders
        and (founders := _entered(own, [made_of.get(p) for p in data.parents_of(i)]))
    }
    everyone = list(dict.fromkeys((*data.ancestors, *chain.from_iterable(entered.values()))))
    founders = [i for i in everyone if i in data.founders]
    others = [i for i in everyone if i not in data.founders]
    kept = (others[: max(1, NODES - len(founders))] + founders)[:NODES]
    edges = [
        (parent, child)
        for child in kept
        for parent in dict.fromkeys((*data.parents_of(child), *entered.get(child, ())))
        if parent in kept
    ]
    generation = {i: data.about(i)["generation"] for i in kept}
    lanes = laid_out(generation, edges)
    order = sorted(kept, key=lambda i: (generation[i], lanes[i], i))
    place = {name: at for at, name in enumerate(order)}
    return {
        "nodes": [_node(data, i, lanes[i]) for i in order],
        "edges": sorted((place[a], place[b]) for a, b in edges),
        "left_out": len(everyone) - len(kept),
    }


def _entered(own: Sequence[str], of_parents: Sequence[Sequence[str] | None]) -> list[str]:
    """The founders in an individual that none of its parents has; none where a parent is not known."""
    known = [of for of in of_parents if of is not None]
    if len(known) < len(of_parents):
        return []
    return [f for f in own if not any(f in of for of in known)]


def _node(data: RunData, individual: str, lane: float) -> FamilyNode:
    row, evaluated = data.about(individual), data.dev_scores
    dev = data.scores(individual, DEV)
    at = evaluated.place.get(individual)
    fitness = evaluated.of(individual)
    return {
        "id": individual,
        "name": data.name(individual),
        "generation": row["generation"],
        "lane": lane,
        "operator": row["operator"],
        "description": row["description"],
        "fitness": fitness,
        "standard_error": None
        if fitness is None or at is None
        else float(evaluated.standard_error[at]),
        "parents": row["parents"],
        "tasks": {task: dev[task][0] if task in dev else None for task in data.shares},
    }


def laid_out(generation: Mapping[str, int], edges: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Where each node stands across its generation, 0 to 1.

    Barycentre sweeps: down and up, each generation is ordered by the mean place of its neighbours on
    the side that the sweep comes from. Ties keep their order, so the same graph gives the same places.
    Of all sweeps the one with the fewest crossings counts.

    Source: Sugiyama, Tagawa & Toda 1981.
    """
    layers: dict[int, list[str]] = {}
    for name in sorted(generation):
        layers.setdefault(generation[name], []).append(name)
    up: dict[str, list[str]] = {name: [] for name in generation}
    down: dict[str, list[str]] = {name: [] for name in generation}
    for parent, child in edges:
        up[child].append(parent)
        down[parent].append(child)
    lane = _lanes(layers)
    best, fewest = lane, crossings(generation, edges, lane)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        near = up if downwards else down
        for number in sorted(layers, reverse=not downwards):
            where = {
                name: sum(lane[n] for n in near[name]) / len(near[name])
                if near[name]
                else lane[name]
                for name in layers[number]
            }
            layers[number].sort(key=where.__getitem__)
            lane |= _lanes({number: layers[number]})
        count = crossings(generation, edges, lane)
        if count < fewest:
            best, fewest = dict(lane), count
    return best


def _lanes(layers: Mapping[int, Sequence[str]]) -> dict[str, float]:
    return {
        name: (at + 0.5) / len(names) for names in layers.values() for at, name in enumerate(names)
    }


def crossings(
    generation: Mapping[str, int], edges: Sequence[tuple[str, str]], lane: Mapping[str, float]
) -> int:
    """How many pairs of edges between the same two generations cross."""
    between: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for parent, child in edges:
        ends = (generation[parent], generation[child])
        between.setdefault(ends, []).append((lane[parent], lane[child]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for group in between.values()
        for i, a in enumerate(group)
        for b in group[:i]
    )
