"""One individual in the terminal: what it is made of, and a data-flow path drawn step by step."""

from collections import Counter
from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from operators.recipe import Founder, Linear, Merge, Noise, Recipe, Route, describe
from operators.recipe.coefficients import Coefficient, Grouped

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def picture(recipe: Recipe, layers: int | None) -> RenderableType:
    """A recipe for the eye. ``layers`` is how many a founder has, where that is known."""
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
    table.add_row("", Text(_name(route.embed), style[route.embed]), "embed", "", "")
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
            Text(_name(step.recipe), style[step.recipe]),
            str(step.layer),
            "" if step.scale == 1.0 else f"×{step.scale:.3f}",
            mark,
        )
    table.add_row("", Text(_name(route.head), style[route.head]), "head", "", "")
    return table


def route_notes(route: Route, layers: int | None) -> Iterator[str]:
    """What a path leaves out, has twice and takes from elsewhere, against its embedding's own model."""
    own = _name(route.embed)
    taken = Counter((s.recipe, s.layer) for s in route.steps)
    dropped = [k for k in range(layers or 0) if (route.embed, k) not in taken]
    yield f"{len(route.steps)} steps" + (f"; {own} itself has {layers}" if layers else "")
    if dropped:
        yield f"dropped of {own}: {_numbers(dropped)}"
    repeated = [f"{_name(r)} {k} ({n} times)" for (r, k), n in taken.items() if n > 1]
    if repeated:
        yield f"repeated: {', '.join(repeated)}"
    others: dict[str, list[int]] = {}
    for step in route.steps:
        if step.recipe != route.embed:
            others.setdefault(_name(step.recipe), []).append(step.layer)
    for name, numbers in others.items():
        yield f"from {name}: {_numbers(numbers)}"
    for model in dict.fromkeys(s.recipe for s in route.steps):
        if not isinstance(model, Founder):
            yield f"{_name(model)} is {describe(model)}"


def _parts(recipe: Recipe) -> RenderableType:
    match recipe:
        case Linear(terms):
            rows: Mapping[Recipe, Coefficient] = dict(terms)
            table = Table(box=None, header_style="bold", pad_edge=False)
            table.add_column("weight", justify="right")
            table.add_column("of")
            for part, weight in rows.items():
                table.add_row(_coefficient(weight), _name(part))
            return table
        case Merge(method, inputs, base, params, seed):
            lines = [f"{method} of {', '.join(map(_name, inputs))}"]
            if base is not None:
                lines.append(f"base {_name(base)}")
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


def _name(recipe: Recipe) -> str:
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
