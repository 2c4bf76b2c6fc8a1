"""An individual's family and founders in the terminal."""

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from evo.lineage import Lineage

_SHADES = " ░▒▓█"


def family_tree(lineage: Lineage, individual: str, most: int) -> RenderableType:
    """An individual with its parents below it, and theirs; each once, ``most`` at the most.

    Nearest ancestors come first, so that what does not fit is what is farthest.
    """
    individual = lineage.find(individual)  # once: the best of a run that is going changes
    columns = ["id", "generation", "operator", "description"]
    family = lineage.ancestors(individual, columns)
    people = {row["id"]: row for row in family.slice(0, most).to_pylist()}
    edges = lineage.tree(individual)
    edges = edges.filter(pc.is_in(edges["child"], pa.array(list(people))))
    parents: defaultdict[str, list[str]] = defaultdict(list)
    fitness: dict[str, float | None] = {}
    for edge in edges.to_pylist():
        parents[edge["child"]].append(edge["parent"])
        fitness[edge["child"]] = edge["child_fitness"]
        fitness[edge["parent"]] = edge["parent_fitness"]
    root = next(iter(people))
    trees = {root: Tree(_label(people[root], fitness.get(root)))}
    waiting = [root]
    for child in waiting:
        at = trees[child]
        for parent in parents[child]:
            known = parent in trees
            if parent in people and not known:
                label = _label(people[parent], fitness.get(parent))
                waiting.append(parent)
            else:
                label = Text(f"{parent[:12]} {'(shown already)' if known else '...'}", "dim")
            if len(parents[child]) == 1:  # a line of only children stays upright
                at.label = Text.assemble(at.label, "\n↑ ", label)  # type: ignore[arg-type]
                trees.setdefault(parent, at)
            else:
                trees.setdefault(parent, at.add(label))
    left = family.num_rows - len(people)
    note = f"and {left} ancestors more; all of them: --ancestors {root[:12]}"
    return Group(trees[root], *([Text(note, "dim")] if left else []))


def _label(row: dict[str, Any], fitness: float | None) -> Text:
    what = row["description"] if row["operator"] == "founder" else row["operator"]
    label = Text.assemble((row["id"][:12], "bold"), "  ", what, f", generation {row['generation']}")
    if fitness is not None:
        label.append(f"  {fitness:.4f}", "green")
    return label


def shares_table(shares: pa.Table) -> Table:
    """Founders across, layers down: each founder's signed weight, and its share as a shade."""
    rows = shares.to_pylist()
    founders = list(dict.fromkeys(row["founder"] for row in rows))
    cells: defaultdict[tuple[str, str], dict[str, Text]] = defaultdict(dict)
    for row in rows:
        shade = _SHADES[round(row["share"] * (len(_SHADES) - 1))]
        cells[row["group"], row["filter"]][row["founder"]] = Text(f"{shade}{row['weight']:6.2g}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("group", no_wrap=True)
    filtered = any(tensors for _, tensors in cells)
    if filtered:
        table.add_column("tensors")
    for founder in founders:
        table.add_column(founder, justify="right", no_wrap=True)
    for (group, tensors), found in cells.items():
        table.add_row(
            group, *([tensors] if filtered else []), *(found.get(name, "") for name in founders)
        )
    return table
