"""A recipe in the terminal: the parts of a merge, or the steps of a data-flow path."""

from collections import Counter
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evo.report.path_notes import recipe_name, route_notes
from operators.recipe import Linear, Merge, Recipe, Route, describe
from operators.recipe.coefficients import Coefficient, Grouped

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def picture(recipe: Recipe, layers: int | None) -> RenderableType:
    """A drawing of a recipe. ``layers`` is the number of layers of a founder, None if unknown."""
    if isinstance(recipe, Route):
        return Group(_route(recipe), *(Text(line) for line in route_notes(recipe, layers)))
    return _parts(recipe)


def _route(route: Route) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in (
        ("step", "right"),
        ("model", "left"),
        ("layer", "right"),
        ("scale", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("")
    models = list(dict.fromkeys((route.embed, *(s.recipe for s in route.steps), route.head)))
    style = {model: COLOURS[i % len(COLOURS)] for i, model in enumerate(models)}
    table.add_row("", Text(recipe_name(route.embed), style[route.embed]), "embed", "", "")
    seen: Counter[tuple[Recipe, int]] = Counter()
    for number, step in enumerate(route.steps):
        at = (step.recipe, step.layer)
        seen[at] += 1
        indent = models.index(step.recipe)
        mark = Text("  " * indent + "■", style[step.recipe])
        if seen[at] > 1:
            mark.append(f"  again ({seen[at]})", "dim")
        table.add_row(
            str(number),
            Text(recipe_name(step.recipe), style[step.recipe]),
            str(step.layer),
            "" if step.scale == 1.0 else f"×{step.scale:.3f}",
            mark,
        )
    table.add_row("", Text(recipe_name(route.head), style[route.head]), "head", "", "")
    return table


def _parts(recipe: Recipe) -> RenderableType:
    match recipe:
        case Linear(terms):
            rows: Mapping[Recipe, Coefficient] = dict(terms)
            table = Table(box=None, header_style="bold", pad_edge=False)
            table.add_column("weight", justify="right")
            table.add_column("of")
            for part, weight in rows.items():
                table.add_row(_coefficient(weight), recipe_name(part))
            return table
        case Merge(method, inputs, base, params, seed):
            lines = [f"{method} of {', '.join(map(recipe_name, inputs))}"]
            if base is not None:
                lines.append(f"base {recipe_name(base)}")
            for name, value in params:
                shown = ", ".join(map(_value, value)) if isinstance(value, tuple) else _value(value)
                lines.append(f"{name}: {shown}")
            return Text("\n".join([*lines, *([f"seed: {seed}"] if seed else [])]))
    return Text(describe(recipe))


def _value(value: bool | str | Coefficient) -> str:
    return str(value) if isinstance(value, bool | str) else _coefficient(value)


def _coefficient(value: Coefficient) -> str:
    if not isinstance(value, Grouped):
        return f"{value:.4g}"
    return "; ".join(
        (f"{' '.join(rule.filters)}: " if rule.filters else "")
        + " ".join(f"{v:.3g}" for v in rule.values)
        for rule in value.rules
    )
