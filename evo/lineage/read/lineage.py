"""The lineage of one run: its tables as Arrow, and common questions about them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from fitness.splits import DEV
from operators.recipe import Recipe
from operators.recipe.canonical import from_json


class Lineage(Tables):
    """The committed tables of one run, finished or running.

    Each question reads only the columns it needs. Columns are kept in memory and extended as the run
    commits more.

    Examples:
        >>> lineage = evo.lineage.open("demo/run")
        >>> lineage.individuals.to_pandas()
        >>> lineage.table("evaluations", ["individual", "fitness"], where=pc.field("split") == "test")

    Every parameter ``individual`` takes an id, a prefix of an id, a founder's name, or ``best``.
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
        may use other columns: ``pc.field("split") == "dev"``. Memory use is that of the result.

        Raises:
            EvoError: no such table or column, or a file is damaged, missing, or of another schema
                version.
        """
        chosen = _columns(name, columns)
        schema = SCHEMAS[name]
        if where is None:
            return self._committed.read(name, chosen)
        needed = list(dict.fromkeys([*chosen, *fields_of(where, schema)]))
        parts = self._committed.each(name, needed, lambda t: t.filter(where).select(chosen))
        return pa.concat_tables(parts or [schema.empty_table().select(chosen)])

    def find(self, prefix: str) -> str:
        """The full id that begins with ``prefix``; also takes ``best`` and the name of a founder.

        Raises:
            EvoError: no id, or more than one, begins with ``prefix``.
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
            raise EvoError(
                f"{self.run_dir}: the winner {found[:12]} is missing from the lineage; restore its files"
            )
        return int(row)

    def best(self) -> str:
        """The id of the winner; of an unfinished run, the individual with the best dev fitness.

        Raises:
            EvoError: no individual has been evaluated yet.
        """
        summary = RunDir(self.run_dir).read_summary()
        if summary is not None:
            return summary.winner_id
        tried = self.best_so_far().select(["individual", "fitness"])
        top = pc.max(tried["fitness"])
        if not top.is_valid:
            raise EvoError(f"{self.run_dir}: no individual has been evaluated yet")
        row = pc.index(tried["fitness"], top).as_py()  # the first of equals
        return str(tried["individual"][row].as_py())

    def recipe(self, individual: str) -> Recipe:
        """The recipe of an individual.

        Raises:
            EvoError: there is no such individual, or the stored recipe does not have its id.
        """
        rows = np.array([self._row(individual)])
        ((found, text),) = zip(
            *self._known.take(rows, ["id", "recipe"]).to_pydict().values(), strict=True
        )
        recipe = from_json(text)
        if recipe.id != found:
            raise EvoError(
                f"{self.run_dir}: the recipe stored for {found[:12]} has the id {recipe.id[:12]}; the lineage "
                "was changed after it was written. Restore its files"
            )
        return recipe

    def ancestors(self, individual: str, columns: Sequence[str] = FAMILY_COLUMNS) -> pa.Table:
        """The individual and all its ancestors, nearest first, then in the order recorded.

        ``columns`` are those of ``individuals`` to read; recipes and parents are most of a lineage's bytes.
        The column ``distance`` is added: the least number of steps from the individual (0 is itself).
        """
        row = self._row(individual)
        return self._reached(self._known.graph.distances(row), columns)

    def descendants(self, individual: str, columns: Sequence[str] = FAMILY_COLUMNS) -> pa.Table:
        """The individual and all its descendants, with the columns of :meth:`ancestors`."""
        row = self._row(individual)
        return self._reached(self._known.graph.reversed().distances(row), columns)

    def _reached(self, distance: npt.NDArray[np.int32], columns: Sequence[str]) -> pa.Table:
        rows = np.flatnonzero(distance >= 0)
        rows = rows[np.argsort(distance[rows], kind="stable")]
        found = self._known.take(rows, _columns("individuals", columns))
        return found.append_column("distance", pa.array(distance[rows]))

    def tree(self, individual: str) -> pa.Table:
        """The edges of an individual's family tree: each ancestor with each of its parents, nearest first.

        Columns: child, parent, operator and generation (both of the child), distance (of the child from
        the individual), child_fitness, parent_fitness (on dev; null if it failed).
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
        """Dev fitness by row of ``index``; NaN if it failed or is unknown."""
        dev = self._dev(["individual", "fitness"])
        rows = index.find(keys_of(dev.column("individual")))
        found = np.full(count, np.nan)
        found[rows[rows >= 0]] = dev.column("fitness").to_numpy()[rows >= 0]
        return found

    def best_so_far(self) -> pa.Table:
        """The best fitness over the search: a row for each individual evaluated on dev, in the order recorded.

        Columns: evaluation (from 0), generation, at_seconds, individual, fitness (null if it failed) and
        best (the greatest fitness so far). Baselines are not included.
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
        """The weight of each founder in an individual, by layer, computed from its recipe.

        Columns: group ("embedding", "layer 0", ..., "head"; of a path "step 0: layer 3"), filter (of
        tensors within the layer, "" for the others), founder ("noise" for noise), weight (signed), share
        (of the sum of |weight| within group and filter). :mod:`evo.lineage.ancestry.shares` says what is exact
        and what is an approximation.
        """
        return founder_shares(self.recipe(individual), layers_of(self.run_dir))

    def compare(
        self, a: str, b: str, split: str = DEV, task: str | None = None, *, seed: int = 0
    ) -> Comparison:
        """Compare two individuals on the examples that both were scored on, with a paired bootstrap.

        An individual that was dropped by a race was scored on some examples only. ``task`` limits the
        comparison to one task. ``seed`` is the seed of the bootstrap.

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
            # One of them was dropped by a race: compare the examples that both were scored on.
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
        # A baseline may have been evaluated in the search too: keep one row for each example.
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
