"""The data of a run that a report is made from: small files, tables of the lineage, and values derived from them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evo.errors import EvoError
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import COMMITS, FINAL, is_finished, read_commit
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.storage.journal import read_journal
from evo.lineage.storage.records import Record
from evo.report.data.dev_scores import DevScores, dev_scores_of
from evo.run_dir import RunDir
from evo.run_dir.manifest import RunManifest
from evo.run_dir.summary import RunSummary
from fitness.splits import DEV
from operators.recipe import Recipe
from operators.recipe.canonical import from_json

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NEAREST = 150  # ancestors of the winner, of which a report says more than their number


@dataclass(frozen=True, slots=True)
class TaskShare:
    """A task and what it weighs in fitness: negative where a lower score is better; all add up to 1
    in size.
    """

    name: str
    metric: str
    weight: float
    share: float


@dataclass(frozen=True)
class RunData:
    """A run as it was read. ``commits`` are the names of those that it has, in order."""

    run_dir: Path
    holder: str | None
    config: Mapping[str, Any]
    manifest: RunManifest | None
    summary: RunSummary | None
    commits: Sequence[str]
    individuals: pa.Table
    evaluations: pa.Table
    population: pa.Table
    events: pa.Table
    problems: Sequence[str] = field(default=())

    @property
    def algorithm(self) -> str:
        """The name of the algorithm."""
        return str(self.config.get("algorithm", {}).get("name", "unknown"))

    @cached_property
    def tasks(self) -> tuple[TaskShare, ...]:
        """As the config has them; where that is lost, all of one weight."""
        listed = self.config.get("tasks") or [
            {"name": name, "metric": "unknown"}
            for name in sorted(self.evaluations.column("task").unique().to_pylist())
        ]
        weights = [float(task.get("weight", 1.0)) for task in listed]
        total = sum(weights)
        return tuple(
            TaskShare(task["name"], task["metric"], w, (w if self._rises(task) else -w) / total)
            for task, w in zip(listed, weights, strict=True)
        )

    def _rises(self, task: Mapping[str, Any]) -> bool:
        """Whether a higher score is better; assumed where the manifest is damaged."""
        return self.manifest is None or task["name"] not in self.manifest.lower_is_better

    @cached_property
    def pending(self) -> list[Record]:
        """The last record in the journal of each individual that no commit holds, evaluated on dev."""
        if self.finished:
            return []
        known = self.dev_scores.place
        records = read_journal(RunDir(self.run_dir).journal).records
        found = {r.individual: r for r in records if r.key[1] == DEV and r.individual not in known}
        return list(found.values())

    def rows_in(self, commit: str, table: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a table's rows in one commit; none where the commit is not there.

        Raises:
            EvoError: its file is damaged.
        """
        if commit not in self.commits:
            return SCHEMAS[table].empty_table().select(columns)
        folder = RunDir(self.run_dir).lineage
        entry = read_commit(folder / COMMITS / f"{commit}.json")
        return read_committed(folder, entry, table, columns)

    def commits_of(self, generation: int) -> list[str]:
        """The names of the commits that may hold rows of a generation: several if the run was extended."""
        numbered = [name for name in self.commits if name.isdigit()]
        stops = len(numbered) if self.manifest is None else len(self.manifest.search.stops)
        return numbered[generation : generation + 1 + stops]

    @property
    def final_commits(self) -> list[str]:
        """The names of the commits that hold what was evaluated after the search."""
        return [name for name in self.commits if name.startswith(FINAL)]

    def recipes(self, individuals: Collection[str]) -> dict[str, Recipe]:
        """Their recipes by id, from the files of the generations that they are of.

        Raises:
            EvoError: a file is damaged, or a recipe is not the one of its id.
        """
        generation = self.individuals.column("generation")
        rows = [self.place[i] for i in individuals if i in self.place]
        names = pa.array(list(individuals), pa.string())
        found: dict[str, Recipe] = {}
        commits = {c for row in rows for c in self.commits_of(generation[row].as_py())}
        for commit in sorted(commits.union(self.final_commits)):
            table = self.rows_in(commit, "individuals", ["id", "recipe"])
            for row in table.filter(pc.is_in(table.column("id"), value_set=names)).to_pylist():
                recipe = found[row["id"]] = from_json(row["recipe"])
                if recipe.id != row["id"]:
                    raise EvoError(
                        f"{self.run_dir}: the recipe stored for {row['id'][:12]} is another one's: the "
                        "lineage was changed after it was written"
                    )
        return found

    @cached_property
    def dev_scores(self) -> DevScores:
        """The individuals of the search, as they were scored on dev."""
        return dev_scores_of(self.individuals, self.evaluations, self.shares)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Each task's signed share of fitness."""
        return {t.name: t.share for t in self.tasks}

    @cached_property
    def place(self) -> dict[str, int]:
        """The row of each individual, by id."""
        return {name: i for i, name in enumerate(self.individuals.column("id").to_pylist())}

    @cached_property
    def parents(self) -> tuple[Ints, Ints]:
        """(starts, rows): the parents of row i are at rows[starts[i]:starts[i + 1]]; -1 is unknown."""
        column = self.individuals.column("parents").combine_chunks()
        counts = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        rows = self.rows_of(pc.list_flatten(column))
        return np.concatenate(([0], np.cumsum(counts))).astype(np.int64), rows

    def rows_of(self, ids: pa.Array) -> Ints:
        """The rows of ``individuals`` that these are; -1 where they are none."""
        found = pc.index_in(ids, value_set=self.individuals.column("id").combine_chunks())
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)

    @cached_property
    def row_of_scored(self) -> Ints:
        """The row of ``individuals`` of each trial."""
        return self.rows_of(pa.array(self.dev_scores.ids, pa.string()))

    @cached_property
    def scored_of_row(self) -> Ints:
        """The other way round; -1 of who is no trial."""
        found = np.full(len(self.place), -1)
        found[self.row_of_scored] = np.arange(len(self.row_of_scored))
        return found

    def parents_of(self, individual: str) -> list[str]:
        """As recorded."""
        parents: list[str] = self.about(individual)["parents"]
        return parents

    @property
    def generations(self) -> int:
        """How many are committed, the founders' included."""
        last = [pc.max(t.column("generation")).as_py() for t in (self.population, self.evaluations)]
        return 1 + max((number for number in last if number is not None), default=-1)

    @property
    def finished(self) -> bool:
        """Whether the run has finished, and was not extended since."""
        return is_finished(self.commits)

    @cached_property
    def founders(self) -> dict[str, str]:
        """Names of the founders by id, in the order given."""
        table = self.individuals.filter(pc.field("operator") == "founder")
        ids, names = (table.column(n).to_pylist() for n in ("id", "description"))
        return dict(zip(ids, names, strict=True))

    @cached_property
    def winner(self) -> str | None:
        """As it was chosen; before that, the best on dev so far."""
        if self.summary is not None:
            chosen = self.summary.winner_id
            if chosen in self.place:
                return chosen
        return self.dev_scores.best()

    @cached_property
    def founder(self) -> str | None:
        """The best founder by dev: the one that would have been picked without evolution."""
        return self.dev_scores.best(self.founders)

    def name(self, individual: str) -> str:
        """A founder's name, or the beginning of the id."""
        return self.founders.get(individual, individual[:12])

    def about(self, individual: str) -> dict[str, Any]:
        """An individual's row of ``individuals``, without the recipe."""
        row: dict[str, Any] = self.individuals.slice(self.place[individual], 1).to_pylist()[0]
        return row

    def scores(self, individual: str, split: str) -> dict[str, tuple[float, float]]:
        """(score, standard error) by task; empty where it was not scored, or failed."""
        rows = self._scored.get((individual, split), {})
        return {task: (r["score"], r["standard_error"]) for task, r in rows.items()}

    def examples(self, individual: str, split: str) -> int:
        """How many it was scored on, over all tasks."""
        return sum(r["examples"] for r in self._scored.get((individual, split), {}).values())

    @cached_property
    def _scored(self) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
        """Rows of those that are named in a report: the table of results, and the winner's family."""
        names = set(self.founders) | {i for i in (self.winner,) if i}
        if self.summary is not None:
            names |= {row.id for row in self.summary.baselines if row.id}
        names |= set(self.ancestors[:NEAREST])
        table = self.evaluations
        rows = table.filter(
            pc.and_(
                pc.is_in(table.column("individual"), value_set=pa.array(list(names), pa.string())),
                pc.is_valid(table.column("score")),
            )
        )
        found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in rows.to_pylist():
            found.setdefault((row["individual"], row["split"]), {})[row["task"]] = row
        return found

    @cached_property
    def ancestors(self) -> list[str]:
        """The winner and all it descends from, nearest first."""
        if self.winner is None or self.winner not in self.place:
            return []
        starts, parents = self.parents
        met = np.zeros(len(self.place), np.bool_)
        frontier = np.array([self.place[self.winner]])
        found: list[Ints] = []
        while len(frontier):
            met[frontier] = True
            found.append(frontier)
            above = np.concatenate([parents[starts[i] : starts[i + 1]] for i in frontier])
            above = above[above >= 0]
            _, first = np.unique(above, return_index=True)
            above = above[np.sort(first)]
            frontier = above[~met[above]]
        ids: list[str] = self.individuals.column("id").take(np.concatenate(found)).to_pylist()
        return ids

    def combine(self, scores: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
        """Fitness, without what a path's length costs, and its standard error, of all tasks' scores."""
        mean = sum(self.shares[task] * score for task, (score, _) in scores.items())
        error = float(
            np.sqrt(sum((self.shares[task] * error) ** 2 for task, (_, error) in scores.items()))
        )
        return mean, error
