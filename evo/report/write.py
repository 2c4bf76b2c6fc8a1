"""The report as a file, written whole or not at all; and its one line for the terminal."""

from pathlib import Path

import evo.lineage
from evo.errors import EvoError
from evo.files import write_whole
from evo.report.facts import facts
from evo.report.page import page
from evo.report.sections.headline import in_a_line
from evo.run_dir import RunDir


def write_report(run_dir: Path, out: Path | None = None) -> tuple[Path, str]:
    """Write the report of a run, finished or not. Returns its path and what it says, in a line;
    what could not be read is on lines of its own.

    Raises:
        EvoError: ``run_dir`` holds no run, or ``out`` is a folder or a device.
    """
    path = RunDir(run_dir).report_path if out is None else out
    if path.is_dir():
        raise EvoError(
            f"--out {path}: is a folder; name a file, such as {path / RunDir(path).report_path.name}"
        )
    if path.exists() and not path.is_file():  # it would be replaced, as a file is
        raise EvoError(f"--out {path}: is no file that could be replaced; name one")
    told = facts(evo.lineage.open(run_dir))
    write_whole(path, page(told).encode())
    problem = f"\nNot all could be read: {told['problem']}" if told["problem"] else ""
    return path, in_a_line(told) + problem
