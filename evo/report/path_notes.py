"""Sentences about a data-flow path: the layers that it drops, repeats, and takes from other models."""

from collections import Counter
from collections.abc import Iterator

from operators.recipe import Founder, Noise, Recipe, Route, describe


def route_notes(route: Route, layers: int | None) -> Iterator[str]:
    """Sentences about a path, compared with the model of its embedding: dropped, repeated and other layers."""
    own = recipe_name(route.embed)
    taken = Counter((s.recipe, s.layer) for s in route.steps)
    dropped = [k for k in range(layers or 0) if (route.embed, k) not in taken]
    yield f"{len(route.steps)} steps" + (f"; {own} itself has {layers}" if layers else "")
    if dropped:
        yield f"dropped of {own}: {_numbers(dropped)}"
    repeated = [f"{recipe_name(r)} {k} ({n} times)" for (r, k), n in taken.items() if n > 1]
    if repeated:
        yield f"repeated: {', '.join(repeated)}"
    others: dict[str, list[int]] = {}
    for step in route.steps:
        if step.recipe != route.embed:
            others.setdefault(recipe_name(step.recipe), []).append(step.layer)
    for name, numbers in others.items():
        yield f"from {name}: {_numbers(numbers)}"
    for model in dict.fromkeys(s.recipe for s in route.steps):
        if not isinstance(model, Founder):
            yield f"{recipe_name(model)} is {describe(model)}"


def recipe_name(recipe: Recipe) -> str:
    """A founder's name, a noise's description, or the beginning of the id."""
    if isinstance(recipe, Founder):
        return recipe.name
    return describe(recipe) if isinstance(recipe, Noise) else recipe.id[:12]


def _numbers(numbers: list[int]) -> str:
    """``0-2, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
