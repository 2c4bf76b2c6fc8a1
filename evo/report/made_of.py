"""What the winner is made of: the founders' shares by layer, or the path through their layers."""

from evo.report.contract import PathFacts, ShareFacts
from evo.report.source import Source
from evo.show import route_notes
from operators.coefficients import value_at
from operators.recipe import Founder, Linear, Noise, Recipe, Route, describe, walk


def shares(source: Source, recipe: Recipe) -> ShareFacts | None:
    """Weights by layer group."""
    layers = int(source.start.get("layers") or 0)
    if isinstance(recipe, Route) or not isinstance(recipe, Linear | Founder):
        return None
    terms = recipe.terms if isinstance(recipe, Linear) else ((recipe, 1.0),)
    groups = ["embedding", *(f"layer {k}" for k in range(layers)), "head"] if layers else ["all"]
    tensors = ["embed", *(f"layers.{k}.x" for k in range(layers)), "head"] if layers else ["x"]
    names = list(dict.fromkeys("noise" if isinstance(r, Noise) else describe(r) for r, _ in terms))
    weight = []
    for tensor in tensors:
        row = dict.fromkeys(names, 0.0)
        for part, coefficient in terms:
            name = "noise" if isinstance(part, Noise) else describe(part)
            row[name] += value_at(coefficient, tensor, max(1, layers))
        weight.append([*row.values()])
    share = [
        [abs(w) / total if (total := sum(map(abs, row))) else 0.0 for w in row] for row in weight
    ]
    return {"groups": groups, "founders": names, "share": share, "weight": weight, "note": ""}


def path(source: Source, recipe: Recipe) -> PathFacts | None:
    """None where the winner is no path."""
    if not isinstance(recipe, Route):
        return None
    models = list(dict.fromkeys((recipe.embed, *(s.recipe for s in recipe.steps), recipe.head)))
    layers = source.start.get("layers")
    return {
        "models": [
            {"id": m.id, "name": m.name if isinstance(m, Founder) else m.id[:12]} for m in models
        ],
        "layers": layers,
        "embed": models.index(recipe.embed),
        "head": models.index(recipe.head),
        "steps": [
            {"model": models.index(s.recipe), "layer": s.layer, "scale": s.scale}
            for s in recipe.steps
        ],
        "notes": list(route_notes(recipe, layers)),
    }


def founders_of(recipe: Recipe) -> list[str]:
    """The ids of all founders that a recipe is made of."""
    return sorted(r.id for r in walk(recipe) if isinstance(r, Founder))
