"""What the winner is made of: the founders' shares by layer, or the path through their layers."""

from evo.lineage.ancestry.shares import founder_shares
from evo.lineage.read.run_config import layers_of
from evo.report.contract import PathFacts, ShareFacts
from evo.report.data.run_data import RunData
from evo.report.path_notes import route_notes
from operators.recipe import Founder, Merge, Noise, Recipe, Route, walk


def shares(data: RunData, recipe: Recipe) -> ShareFacts | None:
    """None of a path between the founders themselves: what is taken from whom is the path."""
    if isinstance(recipe, Route) and all(isinstance(m, Founder) for m in models_of(recipe)):
        return None
    rows = founder_shares(recipe, layers_of(data.run_dir)).to_pylist()
    places = list(dict.fromkeys((r["group"], r["filter"]) for r in rows))
    known = [*data.founders.values()]
    names = sorted(
        {r["founder"] for r in rows}, key=lambda n: known.index(n) if n in known else len(known)
    )
    found = {(r["group"], r["filter"], r["founder"]): r for r in rows}

    def matrix(column: str) -> list[list[float]]:
        return [
            [found[*place, n][column] if (*place, n) in found else 0.0 for n in names]
            for place in places
        ]

    return {
        "groups": [f"{group}, {part}" if part else group for group, part in places],
        "founders": names,
        "share": matrix("share"),
        "weight": matrix("weight"),
        "note": _note(recipe),
    }


def _note(recipe: Recipe) -> str:
    said = []
    if any(isinstance(r, Merge) for r in walk(recipe)):
        said.append("Merges that trim, drop or elect are counted as if they were weighted sums.")
    if any(isinstance(r, Noise) for r in walk(recipe)):
        said.append("Noise is counted by its standard deviation: roughly comparable.")
    return " ".join(said)


def models_of(route: Route) -> list[Recipe]:
    """The models that a path leads through, each once, that of the embedding first."""
    return list(dict.fromkeys((route.embed, *(s.recipe for s in route.steps), route.head)))


def path(data: RunData, recipe: Recipe) -> PathFacts | None:
    """None where the winner is no path."""
    if not isinstance(recipe, Route):
        return None
    models = models_of(recipe)
    layers = layers_of(data.run_dir)
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
