"""A run's folder as it is read for a report: its small files, and the tables of its lineage by column.

Where a file is damaged, what was recorded before it is read, and the rest is said to be missing.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from evo.errors import EvoError
from evo.lineage.files import holder
from evo.lineage.read.lineage import LINEAGE_FOLDER, Lineage
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import FINAL, commit_files, read_commit
from evo.lineage.storage.committed_tables import read_committed
from evo.lineage.summary import SUMMARY_FILE, read_summary
from evo.report.data.run_data import RunData
from evo.run.manifest import START_FILE, read_start

PartT = TypeVar("PartT")
CONFIG = "config.json"
TABLES: Final[Mapping[str, list[str]]] = {
    # Individuals last: a run may go on meanwhile, and whoever was scored is to be among them.
    "population": ["generation", "individual"],
    "events": ["time", "generation", "kind", "detail"],
    "evaluations": [
        c for c in SCHEMAS["evaluations"].names if c not in ("weights", "attempt", "error")
    ],
    "individuals": ["id", "generation", "operator", "parents", "description"],
}


def read(lineage: Lineage) -> RunData:
    """Everything that a report is made from, but examples: those are read where they are needed."""
    run_dir, problems = lineage.run_dir, list[str]()

    def tried(name: str, part: Callable[[Path], PartT], otherwise: PartT) -> PartT:
        try:
            return part(run_dir)
        except EvoError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{run_dir / name}: {error.strerror or error}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            problems.append(f"{run_dir / name}: damaged ({type(error).__name__}: {error})")
        return otherwise

    config: Mapping[str, Any] = tried(CONFIG, _config, {})
    start: Mapping[str, Any] = tried(START_FILE, read_start, {})
    summary = tried(SUMMARY_FILE, _summary, None)
    try:
        tables = {name: lineage.table(name, columns) for name, columns in TABLES.items()}
        names = [path.stem for path in commit_files(run_dir / LINEAGE_FOLDER)]
    except EvoError as error:
        problems.append(f"{error}. What was recorded before that is shown")
        names, tables = _undamaged(run_dir / LINEAGE_FOLDER)
    if beginning(run_dir):
        problems.clear()  # what is missing is yet to be written
    return RunData(run_dir, config, start, summary, names, **tables, problems=tuple(problems))


def beginning(run_dir: Path) -> bool:
    """Whether somebody is at work on a run that has nothing to be read yet."""
    return not (run_dir / CONFIG).exists() and holder(run_dir) is not None


def _config(run_dir: Path) -> Mapping[str, Any]:
    config: dict[str, Any] = json.loads((run_dir / CONFIG).read_text(encoding="utf-8"))
    for task in config["tasks"]:
        _ = task["name"], task["metric"], float(task.get("weight", 1.0)), task.get("files", {}).get
    _ = config["algorithm"]["name"], config["budget"].get, config["seed"]
    return config


def _summary(run_dir: Path) -> Mapping[str, Any] | None:
    summary = read_summary(run_dir)
    if summary is not None:
        _ = summary["winner"]["id"], summary["ensemble"], [b["id"] for b in summary["baselines"]]
    return summary


def _undamaged(folder: Path) -> tuple[list[str], dict[str, pa.Table]]:
    """The names of the commits before the first one that is damaged, and what they hold."""
    names: list[str] = []
    parts: dict[str, list[pa.Table]] = {
        name: [SCHEMAS[name].empty_table().select(columns)] for name, columns in TABLES.items()
    }
    for number, path in enumerate(commit_files(folder)):
        if path.stem not in (f"{number:06d}", FINAL):
            break
        try:
            entry = read_commit(path)
            found = {
                name: read_committed(folder, entry, name, columns, whole=False)
                for name, columns in TABLES.items()
            }
        except EvoError:
            break
        for name, table in found.items():
            parts[name].append(table)
        names.append(path.stem)
    return names, {name: pa.concat_tables(tables) for name, tables in parts.items()}
