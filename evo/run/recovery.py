"""What an earlier sitting of a run left behind, and how a run goes on from it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.lineage.files import free_folder, holder
from evo.lineage.read.lineage import LINEAGE_FOLDER
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import (
    COMMITS,
    FINAL,
    commit_files,
    commits,
    damaged,
    read_commit,
)
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.storage.journal import JOURNAL_FILE, Journal, JournalContents, read_journal
from evo.lineage.storage.records import Record, records_from

CONFIG_FILE = "config.json"
DAMAGED_FOLDER = "damaged"


@dataclass(frozen=True, slots=True)
class Past:
    """All that was recorded: the evaluations in order, whom each commit evaluated, and the journal."""

    records: tuple[Record, ...] = ()
    committed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    journal: JournalContents = field(default_factory=JournalContents)

    def describe(self) -> str:
        """For people, a line."""
        found, torn = self.journal.records, self.journal.torn
        text = f"{len(self.records)} evaluations recorded, {len(found)} of them in the journal"
        return text + (f"; {torn} bytes of a torn record dropped" if torn else "")


def holds_run(run_dir: Path) -> bool:
    """Whether a run has begun in a folder."""
    return (run_dir / CONFIG_FILE).exists() or (run_dir / LINEAGE_FOLDER).exists()


def read_config(run_dir: Path, *, check_files: bool) -> RunConfig:
    """The config that a run was frozen with.

    Raises:
        EvoError: there is no run, or its config is damaged or no longer holds.
    """
    path = run_dir / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if (run_dir / LINEAGE_FOLDER).exists():
            raise EvoError(f"{path}: the file is gone; restore it to go on with the run") from error
        if who := holder(run_dir):
            raise EvoError(f"{run_dir}: {who} is beginning a run here") from error
        raise EvoError(f"{run_dir}: no run here (it has no {CONFIG_FILE})") from error
    except ValueError as error:
        raise EvoError(f"{path}: damaged ({error})") from error
    try:
        return RunConfig.model_validate_json(text, context={"check_files": check_files})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"{key}: " if key else ""
        raise EvoError(
            f"{path}: the run's config no longer holds: {where}{first['msg']}"
        ) from error
    except ValueError as error:
        raise EvoError(f"{path}: damaged ({error})") from error


def read_past(run_dir: Path) -> Past:
    """Everything committed, and then the journal.

    Raises:
        EvoError: a file is damaged; nothing is changed.
    """
    folder = run_dir / LINEAGE_FOLDER
    records: list[Record] = []
    committed = {}
    for entry in commits(folder):
        # All of them, though replay needs two: what is damaged is to be known before anything is added.
        tables = {name: read_committed(folder, entry, name) for name in SCHEMAS}
        found = records_from(tables["evaluations"], tables["items"])
        records += found
        committed[entry.name] = tuple(r.individual for r in found for _ in r.queries)
    journal = read_journal(folder / JOURNAL_FILE)
    if committed and not (folder / JOURNAL_FILE).exists():
        raise damaged(folder / JOURNAL_FILE, "the file is gone")
    records += journal.records
    _check_uncommitted(folder, records)
    return Past(tuple(records), committed, journal)


def _uncommitted(folder: Path) -> list[Path]:
    """Files of tables that no commit counts."""
    names = {p.stem for p in commit_files(folder)}
    found = [p for t in SCHEMAS for p in sorted((folder / t).glob("*.parquet"))]
    return [p for p in found if p.stem not in names]


def _check_uncommitted(folder: Path, records: Sequence[Record]) -> None:
    """A kill in mid-commit leaves tables without their commit; then the journal has what they hold.

    Raises:
        EvoError: it has not, so the commit was there and is gone.
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


def set_damage_aside(run_dir: Path) -> list[str]:
    """Move what is damaged to ``RUN/damaged``, and all that was recorded after it.

    What is left is a whole run, up to an earlier instant. Gives a line for each file that was moved.
    """
    folder = run_dir / LINEAGE_FOLDER
    try:
        read_past(run_dir)
        return []
    except EvoError:
        pass
    moved: list[str] = []
    aside = free_folder(run_dir / DAMAGED_FOLDER)
    first = _first_damaged(folder)
    # The journal first: after a kill in between, what is damaged is still there to be found.
    paths = [folder / JOURNAL_FILE, *_uncommitted(folder)]
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
    if not (folder / JOURNAL_FILE).exists():
        Journal(folder / JOURNAL_FILE).close()
    return moved


def _first_damaged(folder: Path) -> str | None:
    """The name of the first commit that is not whole, or that is gone where later ones are here."""
    paths = commit_files(folder)
    for number, path in enumerate(paths):
        if path.stem not in (f"{number:06d}", FINAL):
            return f"{number:06d}"
        try:
            entry = read_commit(path)
            for table in SCHEMAS:
                read_committed(folder, entry, table)
        except EvoError:
            return path.stem
    return None


def is_finished(past: Past) -> bool:
    """Whether the winner and the baselines are known."""
    return FINAL in past.committed
