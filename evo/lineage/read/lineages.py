"""Many runs at once: the same tables, with the run in front."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from evo.errors import EvoError
from evo.lineage.ancestry.index import COLUMNS as FAMILY_COLUMNS
from evo.lineage.read.filters import fields_of
from evo.lineage.read.lineage import Lineage
from evo.lineage.read.tables import Tables
from evo.lineage.schema import SCHEMAS

RUN = pa.field("run", pa.string(), nullable=False, metadata={"doc": "the run's folder"})


class Lineages(Tables):
    """The tables of many runs. Each has a first column ``run``, the run's folder as it was opened.

    One recipe may have been tried in several runs: it is one individual, with rows in each of them.

    Examples:
        >>> lineages = evo.lineage.open("runs/*")
        >>> lineages.table("population", ["fitness"]).to_pandas().groupby("run").max()
        >>> lineages["runs/a"].best_so_far()
    """

    def __init__(self, lineages: Sequence[Lineage]) -> None:
        self._lineages = {str(one.run_dir): one for one in lineages}
        if not self._lineages:
            raise EvoError("no runs to open")

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs' folders, in the order opened."""
        return tuple(self._lineages)

    def __getitem__(self, run: str | Path) -> Lineage:
        """One run's lineage, by its folder, or by the folder's last name where that is one's alone."""
        if str(run) in self._lineages:
            return self._lineages[str(run)]
        named = [one for one in self._lineages.values() if one.run_dir.name == str(run)]
        if len(named) != 1:
            raise EvoError(f"no run {str(run)!r} here; there are: {', '.join(self.runs)}")
        return named[0]

    def __len__(self) -> int:
        return len(self._lineages)

    def table(
        self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """As :meth:`Lineage.table`, with the column ``run``, which ``where`` may use too.

        Raises:
            EvoError: as there.
        """
        chosen = None if columns is None else [c for c in columns if c != RUN.name]
        if columns and not chosen and name in SCHEMAS:
            # The run alone: any column says how many rows.
            return self.table(name, SCHEMAS[name].names[:1], where).select([RUN.name])
        if where is None or name not in SCHEMAS:
            return self._joined(lambda one: one.table(name, chosen))
        schema = SCHEMAS[name]
        used = fields_of(where, pa.schema([RUN, *schema]))
        if RUN.name not in used:
            return self._joined(lambda one: one.table(name, chosen, where))
        kept = schema.names if chosen is None else chosen
        needed = list(dict.fromkeys([*kept, *(f for f in used if f != RUN.name)]))
        found = self._joined(lambda one: one.table(name, needed))
        return found.filter(where).select([RUN.name, *kept])

    def find(self, prefix: str) -> str:
        """The full id that begins with ``prefix``, whichever run it is of.

        Raises:
            EvoError: no individual of any run, or more than one, begins like this.
        """
        if prefix == "best":
            raise EvoError(f"each run has a best of its own: open one of {', '.join(self.runs)}")
        ids = self.table("individuals", ["id"]).column("id").unique()
        found = ids.filter(pc.starts_with(ids, prefix)).to_pylist() if prefix else []
        if len(found) == 1:
            return str(found[0])
        what = "no individual's id begins" if not found else f"{len(found)} ids begin"
        raise EvoError(f"{what} with {prefix!r} in any of {', '.join(self.runs)}")

    def ancestors(self, individual: str, columns: Sequence[str] = FAMILY_COLUMNS) -> pa.Table:
        """As :meth:`Lineage.ancestors`, in every run where the individual was tried."""
        found = self.find(individual)
        return self._joined(lambda one: one.ancestors(found, columns), self._with(found))

    def descendants(self, individual: str, columns: Sequence[str] = FAMILY_COLUMNS) -> pa.Table:
        """As :meth:`Lineage.descendants`, in every run where the individual was tried."""
        found = self.find(individual)
        return self._joined(lambda one: one.descendants(found, columns), self._with(found))

    def _with(self, individual: str) -> list[str]:
        tried = self.table("individuals", ["id"], pc.field("id") == individual).column("run")
        return [str(run) for run in tried.unique().to_pylist()]

    def _joined(
        self, read: Callable[[Lineage], pa.Table], runs: Sequence[str] | None = None
    ) -> pa.Table:
        parts = []
        for run in self.runs if runs is None else runs:
            rows = read(self._lineages[run])
            names = pa.repeat(pa.scalar(run), rows.num_rows)
            parts.append(rows.add_column(0, RUN, names))
        return pa.concat_tables(parts)
