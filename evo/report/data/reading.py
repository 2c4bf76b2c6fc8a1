"""A run's folder as it is read for a report: its small files, and the tables of its lineage by column.

Where a file is damaged, what was recorded before it is read, and the rest is said to be missing.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import (
    commit_files,
    is_finished,
    looks,
    read_commit,
)
from evo.lineage.storage.committed_tables import read_committed
from evo.report.data.run_data import RunData
from evo.run_dir import RunDir

PartT = TypeVar("PartT")
TABLES: Final[Mapping[str, list[str]]] = {
    # Individuals last: a run may commit more meanwhile, and each evaluated individual must be among them.
    "population": ["generation", "individual"],
    "events": ["time", "generation", "kind", "detail"],
    "evaluations": [
        c for c in SCHEMAS["evaluations"].names if c not in ("weights", "attempt", "error")
    ],
    "individuals": ["id", "generation", "operator", "parents", "description"],
}


def read(lineage: Lineage) -> RunData:
    """Read what a report is made from, without examples, which are read where they are needed."""
    folder, problems = RunDir(lineage.run_dir), list[str]()
    process = folder.holder()  # first: a run that ends meanwhile has committed everything by then

    def tried(path: Path, part: Callable[[], PartT], otherwise: PartT) -> PartT:
        try:
            return part()
        except EvoError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            problems.append(f"{path}: damaged ({type(error).__name__}: {error})")
        return otherwise

    config: Mapping[str, Any] = tried(folder.config_path, partial(_config, folder), {})
    manifest = tried(folder.manifest_path, folder.read_manifest, None)
    summary = tried(folder.summary_path, folder.read_summary, None)
    try:
        tables = {name: lineage.table(name, columns) for name, columns in TABLES.items()}
        names = [path.stem for path in commit_files(folder.lineage)]
    except EvoError as error:
        problems.append(f"{error}. The report shows what was recorded before")
        names, tables = _undamaged(folder.lineage)
    if looks(names) > 1 and not is_finished(names):
        summary = None  # of the end before the extension that is running
    if folder.is_starting:
        problems.clear()  # the missing files are not written yet
    return RunData(
        folder.path, process, config, manifest, summary, names, **tables, problems=tuple(problems)
    )


def _config(folder: RunDir) -> Mapping[str, Any]:
    config: dict[str, Any] = json.loads(folder.config_path.read_text(encoding="utf-8"))
    for task in config["tasks"]:
        _ = task["name"], task["metric"], float(task.get("weight", 1.0)), task.get("files", {}).get
    _ = config["algorithm"]["name"], config["budget"].get, config["seed"]
    return config


def _undamaged(folder: Path) -> tuple[list[str], dict[str, pa.Table]]:
    """The names of the commits before the first one that is damaged, and what they hold."""
    names: list[str] = []
    parts: dict[str, list[pa.Table]] = {
        name: [SCHEMAS[name].empty_table().select(columns)] for name, columns in TABLES.items()
    }
    for number, path in enumerate(commit_files(folder)):
        if path.stem.isdigit() and path.stem != f"{number:06d}":
            break
        try:
            entry = read_commit(path)
            found = {
                name: read_committed(folder, entry, name, columns)
                for name, columns in TABLES.items()
            }
        except EvoError:
            break
        for name, table in found.items():
            parts[name].append(table)
        names.append(path.stem)
    return names, {name: pa.concat_tables(tables) for name, tables in parts.items()}
