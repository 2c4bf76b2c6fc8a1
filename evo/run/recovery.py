"""Recovery: what is recorded of a run that is resumed, and the repair of damaged files."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evo.errors import EvoError
from evo.files import free_folder
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import (
    COMMITS,
    commit_files,
    commits,
    damaged,
    is_finished,
    read_commit,
)
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.storage.journal import Journal, JournalContents, read_journal
from evo.lineage.storage.records import Record, records_from
from evo.run_dir import RunDir
from fitness.splits import DEV


@dataclass(frozen=True, slots=True)
class Past:
    """What is recorded of a run.

    Attributes:
        search: evaluations that the numbered commits hold, in the order recorded.
        final: those of final commits.
        individuals: ids that final commits hold.
        baselines: evaluations of baselines that are searches with a lineage of their own.
        committed: the individuals that each commit evaluated, one entry a task.
        journal: what no commit holds yet.
    """

    search: tuple[Record, ...] = ()
    final: tuple[Record, ...] = ()
    individuals: frozenset[str] = frozenset()
    baselines: tuple[Record, ...] = ()
    committed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    journal: JournalContents = field(default_factory=JournalContents)

    @property
    def is_finished(self) -> bool:
        """Whether the winner and the baselines are known, and no extension has begun since."""
        return is_finished(self.committed)

    @property
    def generations(self) -> int:
        """The number of commits of the search."""
        return sum(name.isdigit() for name in self.committed)

    def searched(self, budget: int | None) -> int:
        """Return how many individuals the search has evaluated; ``budget`` is the most that it could."""
        done = {r.individual for r in self.search}
        count = len(done | {r.individual for r in self.journal.records if r.key[1] == DEV})
        # After the search, the journal has the baselines' evaluations.
        return count if budget is None else max(len(done), min(count, budget))

    def describe(self) -> str:
        """Return one line for the log."""
        found, torn = self.journal.records, self.journal.torn
        count = len(self.search) + len(self.final) + len(found)
        text = f"{count} evaluations recorded, {len(found)} of them in the journal"
        return text + (f"; {torn} bytes of an incomplete record dropped" if torn else "")


def read_past(run_dir: RunDir) -> Past:
    """Read everything that is committed, and then the journal.

    Raises:
        EvoError: a file is damaged; nothing is changed.
    """
    folder = run_dir.lineage
    search: list[Record] = []
    final: list[Record] = []
    individuals: set[str] = set()
    committed = {}
    for entry in commits(folder):
        # All tables, though replay needs two: damage must be found before anything is written.
        tables = {name: read_committed(folder, entry, name) for name in SCHEMAS}
        found = records_from(tables["evaluations"], tables["items"])
        if entry.name.isdigit():
            search += found
        else:
            final += found
            individuals.update(tables["individuals"].column("id").to_pylist())
        committed[entry.name] = tuple(r.individual for r in found for _ in r.queries)
    journal = read_journal(run_dir.journal)
    if committed and not run_dir.journal.exists():
        raise damaged(run_dir.journal, "the file is gone")
    _check_uncommitted(folder, [*search, *final, *journal.records])
    return Past(
        tuple(search),
        tuple(final),
        frozenset(individuals),
        tuple(_baselines(run_dir)),
        committed,
        journal,
    )


def _baselines(run_dir: RunDir) -> Iterator[Record]:
    """Yield the evaluations of baselines; what is damaged there is evaluated again."""
    for folder in run_dir.baselines():
        with suppress(EvoError):
            for entry in commits(folder.lineage):
                tables = [
                    read_committed(folder.lineage, entry, t) for t in ("evaluations", "items")
                ]
                yield from records_from(tables[0], tables[1])


def set_damage_aside(run_dir: RunDir) -> list[str]:
    """Move damaged files, and all that was recorded after them, to the run's folder for them.

    What remains is a complete run up to an earlier instant. Returns one line for each file moved.
    """
    folder = run_dir.lineage
    try:
        read_past(run_dir)
        return []
    except EvoError:
        pass
    moved: list[str] = []
    aside = free_folder(run_dir.damaged)
    first = _first_damaged(folder)
    # The journal first: if the process is killed in between, the damage is still there to be found.
    paths = [run_dir.journal, *_uncommitted(folder)]
    if first is not None:
        names = {first} | {p.stem for p in commit_files(folder)}
        late = sorted(name for name in names if name >= first)
        tables = (*SCHEMAS, COMMITS)
        paths += [p for n in late for t in tables for p in (folder / t).glob(f"{n}.*")]
    for path in dict.fromkeys(paths):
        if path.exists():
            target = aside / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
            moved.append(f"{path} -> {target}")
    if not run_dir.journal.exists():
        Journal(run_dir.journal).close()
    return moved


def _uncommitted(folder: Path) -> list[Path]:
    """Return the tables' files that belong to no commit."""
    names = {p.stem for p in commit_files(folder)}
    found = [p for t in SCHEMAS for p in sorted((folder / t).glob("*.parquet"))]
    return [p for p in found if p.stem not in names]


def _check_uncommitted(folder: Path, records: Sequence[Record]) -> None:
    """Check files without a commit: a process killed while it committed leaves them, and their rows are
    in the journal.

    Raises:
        EvoError: the rows are not in the journal, so a commit's file is missing.
    """
    held = {(r.individual, r.key[1]) for r in records}
    for path in _uncommitted(folder):
        if path.parent.name == "evaluations":
            try:
                rows = pq.read_table(path, columns=["individual", "split"]).to_pylist()
            except (pa.ArrowException, OSError, ValueError) as error:
                raise damaged(path, str(error)) from error
            if any((r["individual"], r["split"]) not in held for r in rows):
                raise damaged(folder / COMMITS / f"{path.stem}.json", "the file is gone")


def _first_damaged(folder: Path) -> str | None:
    """Return the name of the first commit that is damaged, or missing before later ones."""
    paths = commit_files(folder)
    for number, path in enumerate(paths):
        if path.stem.isdigit() and path.stem != f"{number:06d}":
            return f"{number:06d}"
        try:
            entry = read_commit(path)
            for table in SCHEMAS:
                read_committed(folder, entry, table)
        except EvoError:
            return path.stem
    return None
