"""Lineage as it is read: Arrow tables, pandas frames, ancestors and descendants."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from evo.errors import UserError
from evo.lineage.commits import commits, read_committed
from evo.lineage.schema import SCHEMAS
from operators.recipe import Recipe
from operators.recipe_json import from_json

if TYPE_CHECKING:
    from evo.rebuild import Rebuilt

LINEAGE_FOLDER = "lineage"


class Lineage:
    """The tables of one run, as far as committed; works while it runs.

    >>> lineage = evo.lineage.open("demo/run")
    >>> lineage.individuals.to_pandas()
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @property
    def individuals(self) -> pa.Table:
        """Everyone who was ever tried: id, generation, operator, parents, recipe, seed."""
        return self.table("individuals")

    @property
    def evaluations(self) -> pa.Table:
        """Every evaluation: individual, task, split, score, standard error, time, host, status."""
        return self.table("evaluations")

    @property
    def items(self) -> pa.Table:
        """Per-example scores."""
        return self.table("items")

    @property
    def population(self) -> pa.Table:
        """Who was alive in which generation, with rank and fitness."""
        return self.table("population")

    @property
    def events(self) -> pa.Table:
        """What happened to the run itself: start, retries, failures, finish."""
        return self.table("events")

    def table(self, name: str) -> pa.Table:
        """A table by name, in order of commit, in the declared schema.

        Raises:
            UserError: no such table, or a file is damaged.
        """
        if name not in SCHEMAS:
            raise UserError(f"no table {name!r}; there are: {', '.join(SCHEMAS)}")
        folder = self.run_dir / LINEAGE_FOLDER
        parts = [read_committed(folder, entry, name) for entry in commits(folder)]
        return pa.concat_tables([SCHEMAS[name].empty_table(), *parts])

    def find(self, prefix: str) -> str:
        """The full id that begins with ``prefix``; ``best`` is the winner's.

        Raises:
            UserError: no individual, or more than one, begins like this.
        """
        if prefix == "best":
            return self.best()
        ids = self.individuals.column("id").to_pylist()
        found = [i for i in ids if i.startswith(prefix)] if prefix else []
        if len(found) == 1:
            return str(found[0])
        what = "no individual's id begins" if not found else f"{len(found)} ids begin"
        raise UserError(
            f"{what} with {prefix!r}. `evo lineage {self.run_dir}` lists all {len(ids)} individuals"
        )

    def best(self) -> str:
        """The winner's id: of a finished run as it was chosen, of a running one by dev fitness.

        Raises:
            UserError: nobody has been evaluated yet.
        """
        from evo.summary import read_summary

        summary = read_summary(self.run_dir)
        if summary is not None:
            return str(summary["winner"]["id"])
        alive = self.population.filter(pc.is_valid(pc.field("fitness")))
        if not alive.num_rows:
            raise UserError(f"{self.run_dir}: no generation has finished yet")
        order = [("fitness", "descending"), ("generation", "ascending")]
        return str(alive.sort_by(order).column("individual")[0].as_py())

    def recipe(self, individual: str) -> Recipe:
        """The recipe of an individual, by id, prefix of an id, or ``best``."""
        found = self.find(individual)
        rows = self.individuals.filter(pc.field("id") == found)
        recipe = from_json(rows.column("recipe")[0].as_py())
        if recipe.id != found:
            raise UserError(
                f"{self.run_dir}: the recipe stored for {found[:12]} is that of {recipe.id[:12]}: the "
                "lineage was changed after it was written"
            )
        return recipe

    def rebuild(
        self, individual: str, *, founders: Mapping[str, Path] | None = None, check: bool = True
    ) -> "Rebuilt":
        """The weights of an individual as they were when it lived: see :func:`evo.rebuild.rebuild`."""
        from evo.rebuild import rebuild

        return rebuild(self, individual, founders=founders, check=check)

    def ancestors(self, individual: str) -> pa.Table:
        """The individual and all it descends from: its rows of ``individuals`` and ``distance``,

        the least number of steps from it (0 is itself), nearest first.
        """
        parents = self._parents()
        return self._reached(self.find(individual), parents)

    def descendants(self, individual: str) -> pa.Table:
        """The individual and all that descend from it, as :meth:`ancestors` gives them."""
        children: dict[str, list[str]] = {}
        for child, parents in self._parents().items():
            for parent in parents:
                children.setdefault(parent, []).append(child)
        return self._reached(self.find(individual), children)

    def _parents(self) -> dict[str, list[str]]:
        table = self.individuals
        ids, parents = table.column("id").to_pylist(), table.column("parents").to_pylist()
        return dict(zip(ids, parents, strict=True))

    def _reached(self, start: str, neighbours: Mapping[str, list[str]]) -> pa.Table:
        distance = {start: 0}
        frontier = [start]
        while frontier:
            following = [n for i in frontier for n in neighbours.get(i, ()) if n not in distance]
            frontier = list(dict.fromkeys(following))
            level = max(distance.values()) + 1
            distance |= dict.fromkeys(frontier, level)
        table = self.individuals
        rows = table.filter(pc.is_in(table.column("id"), value_set=pa.array(list(distance))))
        steps = pa.array([distance[i] for i in rows.column("id").to_pylist()], pa.int32())
        return rows.append_column("distance", steps).sort_by(
            [("distance", "ascending"), ("generation", "ascending"), ("id", "ascending")]
        )


def open_lineage(run_dir: Path | str) -> Lineage:
    """The lineage of a run's folder, finished or still going.

    Raises:
        UserError: the folder is no run.
    """
    path = Path(run_dir)
    if not (path / LINEAGE_FOLDER).is_dir():
        raise UserError(f"{path}: no run here (it has no folder {LINEAGE_FOLDER!r})")
    return Lineage(path)
