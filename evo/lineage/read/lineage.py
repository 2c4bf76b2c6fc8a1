"""Lineage as it is read: Arrow tables, and the questions that people ask of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evo.errors import EvoError
from evo.lineage.ancestry.graph import KeyIndex, ParentKeys, keys_of
from evo.lineage.ancestry.index import COLUMNS as FAMILY_COLUMNS
from evo.lineage.ancestry.index import AncestryIndex
from evo.lineage.ancestry.shares import founder_shares
from evo.lineage.read.best_so_far import best_so_far
from evo.lineage.read.comparison import Comparison, compared
from evo.lineage.read.filters import fields_of
from evo.lineage.read.run_config import founder_id, layers_of, task_shares
from evo.lineage.read.tables import Tables
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.committed_tables import CommittedTables
from evo.run_dir import RunDir
from operators.recipe import Recipe
from operators.recipe.canonical import from_json

if TYPE_CHECKING:
    from evo.reproduce.rebuild import Rebuilt

DEV = "dev"


# Of individuals. Recipes are most of a lineage's bytes, parents most of the rest: who wants them of a
# whole family asks for them, or for the tree.


class Lineage(Tables):
    """The tables of one run, as far as committed; works while it runs.

    Only the columns that a question needs are read, each once: a Lineage remembers what it read, and
    reads on as the run does.

    Examples:
        >>> lineage = evo.lineage.open("demo/run")
        >>> lineage.individuals.to_pandas()
        >>> lineage.table("evaluations", ["individual", "fitness"], where=pc.field("split") == "test")

    Wherever an individual is asked for, an id, a prefix of one or ``best`` will do.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._committed = CommittedTables(RunDir(run_dir).lineage)
        self._known = AncestryIndex(self._committed)

    def table(
        self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """A table by name, in order of commit, in the declared schema.

        ``columns`` are those to read, by default all. ``where`` keeps the rows for which it is true, and
        may use other columns: ``pc.field("split") == "dev"``. Memory is that of the columns and rows
        asked for.

        Raises:
            EvoError: no such table or column, or a file is damaged, gone, or of a newer schema.
        """
        chosen = _columns(name, columns)
        schema = SCHEMAS[name]
        if where is None:
            return self._committed.read(name, chosen)
        needed = list(dict.fromkeys([*chosen, *fields_of(where, schema)]))
        parts = self._committed.each(name, needed, lambda t: t.filter(where).select(chosen))
        return pa.concat_tables(parts or [schema.empty_table().select(chosen)])

    def find(self, prefix: str) -> str:
        """The full id that begins with ``prefix``; ``best`` is the winner's, and a founder has its name.

        Raises:
            EvoError: no individual, or more than one, begins like this.
        """
        if prefix == "best":
            return self.best()
        rows = self._family().beginning(founder_id(self.run_dir, prefix) or prefix)
        if len(rows) == 1:
            return str(self._known.take(rows, ["id"]).column("id")[0].as_py())
        what = f"{len(rows)} ids begin" if len(rows) else "no individual's id begins"
        raise EvoError(
            f"{what} with {prefix!r}. `evo lineage {self.run_dir}` lists all {len(self._known.graph)} "
            "individuals"
        )

    def _family(self) -> AncestryIndex:
        self._known.update()
        return self._known

    def _row(self, individual: str) -> int:
        found = self.find(individual)
        keys = keys_of(pa.chunked_array([pa.array([found])]))
        (row,) = self._family().index.find(keys).tolist()
        if row < 0:
            raise EvoError(f"{self.run_dir}: its winner {found[:12]} is not in its lineage")
        return int(row)

    def best(self) -> str:
        """The winner's id: of a finished run as it was chosen, of a running one by dev fitness.

        Raises:
            EvoError: nobody has been evaluated yet.
        """
        summary = RunDir(self.run_dir).read_summary()
        if summary is not None:
            return summary.winner_id
        tried = self.best_so_far().select(["individual", "fitness"])
        if tried["fitness"].null_count == tried.num_rows:  # no schema before 2 has it of two tasks
            tried = self.table("population", ["individual", "fitness"])
        top = pc.max(tried["fitness"])
        if not top.is_valid:
            raise EvoError(f"{self.run_dir}: no generation has finished yet")
        row = pc.index(tried["fitness"], top).as_py()  # of equals the first
        return str(tried["individual"][row].as_py())

    def recipe(self, individual: str) -> Recipe:
        """The recipe of an individual.

        Raises:
            EvoError: there is no such individual, or its recipe is another's.
        """
        rows = np.array([self._row(individual)])
        ((found, text),) = zip(
            *self._known.take(rows, ["id", "recipe"]).to_pydict().values(), strict=True
        )
        recipe = from_json(text)
        if recipe.id != found:
            raise EvoError(
                f"{self.run_dir}: the recipe stored for {found[:12]} is that of {recipe.id[:12]}: the "
                "lineage was changed after it was written"
            )
        return recipe

    def rebuild(
        self, individual: str, *, founders: Mapping[str, Path] | None = None, check: bool = True
    ) -> "Rebuilt":
        """The weights of an individual as they were when it lived: see :func:`evo.reproduce.rebuild.rebuild`."""
        from evo.reproduce.rebuild import rebuild

        return rebuild(self, individual, founders=founders, check=check)

    def ancestors(self, individual: str, columns: Sequence[str] = FAMILY_COLUMNS) -> pa.Table:
        """The individual and all it descends from: ``columns`` of ``individuals``, and ``distance``, the

        least number of steps from it (0 is itself). Nearest first, then in the order recorded.
        Parents and recipes, which are most of a lineage's bytes, are read if ``columns`` says so.
        """
        row = self._row(individual)
        return self._reached(self._known.graph.distances(row), columns)

    def descendants(self, individual: str, columns: Sequence[str] = FAMILY_COLUMNS) -> pa.Table:
        """The individual and all that descend from it, as :meth:`ancestors` gives them."""
        row = self._row(individual)
        return self._reached(self._known.graph.turned().distances(row), columns)

    def _reached(self, distance: npt.NDArray[np.int32], columns: Sequence[str]) -> pa.Table:
        rows = np.flatnonzero(distance >= 0)
        rows = rows[np.argsort(distance[rows], kind="stable")]
        found = self._known.take(rows, _columns("individuals", columns))
        return found.append_column("distance", pa.array(distance[rows]))

    def tree(self, individual: str) -> pa.Table:
        """The edges among an individual's ancestors, nearest children first.

        Columns: child, parent, operator and generation (both of the child), distance (of the child from
        the individual), child_fitness, parent_fitness (on dev; null where it failed or is not known).
        """
        family = self.ancestors(individual, ["id", "generation", "operator", "parents"])
        links = ParentKeys.of(family)
        index = KeyIndex.of(links.keys)
        graph = links.graph(index)
        child, parent = graph.edges(np.arange(family.num_rows))
        fitness = self._dev_fitness(index, family.num_rows)
        children = family.take(pa.array(child))
        return pa.table(
            {
                "child": children.column("id"),
                "parent": family.column("id").take(pa.array(parent)),
                "operator": children.column("operator"),
                "generation": children.column("generation"),
                "distance": children.column("distance"),
                "child_fitness": pa.array(fitness[child], from_pandas=True),
                "parent_fitness": pa.array(fitness[parent], from_pandas=True),
            }
        )

    def _dev_fitness(self, index: KeyIndex, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """On dev, by row of ``index``; NaN where it failed or is not known."""
        dev = self._dev(["individual", "fitness"])
        rows = index.find(keys_of(dev.column("individual")))
        found = np.full(count, np.nan)
        found[rows[rows >= 0]] = dev.column("fitness").to_numpy()[rows >= 0]
        return found

    def best_so_far(self) -> pa.Table:
        """The search's curve, a row for each individual that it evaluated on dev, in the order recorded.

        Columns: evaluation (from 0), generation, at_seconds, individual, fitness (null if it failed) and
        best, the greatest fitness up to here. Static merges of ``baselines`` are not the search's.
        """
        columns = ["individual", "generation", "at_seconds", "fitness", "split"]
        rows = self.table("evaluations", columns)
        rows = rows.slice(0, rows.num_rows - self._committed.finals("evaluations"))
        return best_so_far(rows.filter(pc.equal(rows.column("split"), DEV)))

    def _dev(self, columns: Sequence[str]) -> pa.Table:
        rows = self.table("evaluations", [*columns, "split"])
        dev = pc.equal(rows.column("split"), DEV)
        return (rows if pc.all(dev).as_py() else rows.filter(dev)).select(columns)

    def founder_shares(self, individual: str) -> pa.Table:
        """How much of each founder is in an individual, by layer, from its recipe.

        Columns: group ("embedding", "layer 0", ..., "head"; of a path "step 0: layer 3"), filter (of
        tensors within the layer, "" for the others), founder ("noise" for noise), weight (signed), share
        (of the sum of |weight| within group and filter). :mod:`evo.lineage.ancestry.shares` says what of it is
        an approximation.
        """
        return founder_shares(self.recipe(individual), layers_of(self.run_dir))

    def compare(
        self, a: str, b: str, split: str = DEV, task: str | None = None, *, seed: int = 0
    ) -> Comparison:
        """Which examples one individual gets right and the other wrong, with a paired bootstrap.

        Of examples that both met; that is fewer where one was dropped from a race.

        ``task`` is the one to look at, by default all. ``seed`` is the bootstrap's.

        Raises:
            EvoError: one of them has no scores on that split and task.
        """
        ids = self.find(a), self.find(b)
        keep = pc.field("split") == split
        if task is not None:
            keep &= pc.field("task") == task
        first, second = (self._items_of(i, keep) for i in ids)
        for found, rows in zip(ids, (first, second), strict=True):
            if not rows.num_rows:
                of = f"{split} of task {task!r}" if task is not None else split
                raise EvoError(f"{self.run_dir}: {found[:12]} has no scores on {of}")
        keys = ["task", "split", "example"]
        if not first.select(keys).equals(second.select(keys)):
            # One of them was dropped from a race: what both have met is what there is to compare.
            order = [(name, "ascending") for name in keys]
            first = first.join(second.select(keys), keys, join_type="left semi").sort_by(order)
            second = second.join(first.select(keys), keys, join_type="left semi").sort_by(order)
        items = pa.table(
            {
                **{name: first.column(name) for name in keys},
                "a": first.column("value"),
                "b": second.column("value"),
                "a_answer": first.column("answer"),
                "b_answer": second.column("answer"),
            }
        )
        shares = task_shares(self.run_dir)
        return compared(*ids, split, items, shares, seed=seed)

    def _items_of(self, individual: str, keep: pc.Expression) -> pa.Table:
        columns = ["task", "split", "example", "value", "answer"]
        rows = self.table("items", columns, (pc.field("individual") == individual) & keep)
        # Once each: baselines may have tried again what the search did.
        once = rows.group_by(columns[:3], use_threads=False).aggregate(
            [(name, "first") for name in columns[3:]]
        )
        return once.rename_columns(columns).sort_by([(name, "ascending") for name in columns[:3]])


def _columns(table: str, columns: Sequence[str] | None) -> list[str]:
    if table not in SCHEMAS:
        raise EvoError(f"no table {table!r}; there are: {', '.join(SCHEMAS)}")
    names = SCHEMAS[table].names
    if columns is not None and not columns:
        raise EvoError(f"table {table} without columns; there are: {', '.join(names)}")
    for column in columns or ():
        if column not in names:
            raise EvoError(f"table {table} has no column {column!r}; there are: {', '.join(names)}")
    return list(names if columns is None else columns)
