"""Opening lineages: of one run, or of many at once."""

from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path
from typing import Any, overload

from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.lineage.read.lineages import Lineages
from evo.run_dir import RunDir


@overload
def open_lineage(path: Path) -> Lineage: ...
@overload
def open_lineage(path: str) -> Any: ...  # a Lineage; of a pattern, Lineages
@overload
def open_lineage(path: Iterable[Path | str]) -> Lineages: ...
def open_lineage(path: Path | str | Iterable[Path | str]) -> Lineage | Lineages:
    """The lineage of a run's folder, finished or still going; or of many runs at once.

    ``path`` is one folder, several, or a pattern such as ``"runs/*"``, of which the folders count that
    hold a run.

    Raises:
        EvoError: a folder is no run, or no run fits the pattern.
    """
    if isinstance(path, Path):
        return _open_run(path)
    if isinstance(path, str):
        if not has_magic(path) or Path(path).exists():
            return _open_run(Path(path))
        folders = [Path(f) for f in sorted(glob(path, recursive=True))]
        runs = [f for f in folders if RunDir(f).lineage.is_dir()]
        if not runs:
            raise EvoError(f"{path}: no run fits this (a run has a folder 'lineage')")
        return Lineages([Lineage(f) for f in runs])
    return Lineages([_open_run(Path(p)) for p in path])


def _open_run(path: Path) -> Lineage:
    if not RunDir(path).lineage.is_dir():
        raise EvoError(f"{path}: no run here (it has no folder {RunDir(path).lineage.name!r})")
    return Lineage(path)
