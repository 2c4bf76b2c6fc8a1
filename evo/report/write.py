"""The report as a file, written whole or not at all; and its one line for the terminal."""

from pathlib import Path

import evo.lineage
from evo.errors import UserError
from evo.lineage.files import write_whole
from evo.report.contract import Facts
from evo.report.facts import facts
from evo.report.page import page

REPORT_FILE = "report.html"


def write_report(run_dir: Path, out: Path | None = None) -> tuple[Path, str]:
    """Write the report of a run, finished or not. Returns its path and what it says, in a line.

    Raises:
        UserError: ``run_dir`` holds no run, or ``out`` is a folder.
    """
    path = run_dir / REPORT_FILE if out is None else out
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name a file, such as {path / REPORT_FILE}")
    told = facts(evo.lineage.open(run_dir))
    write_whole(path, page(told).encode())
    return path, in_a_line(told)


def in_a_line(told: Facts) -> str:
    """``+0.304 on test (95 % interval +0.268 to +0.340) over the best founder, alpha1``."""
    headline = told["headline"]
    if headline is None:
        return "no result yet: nothing to compare with a founder"
    line = f"{headline['difference']:+.3f} on {headline['split']}"
    if headline["low"] is not None and headline["high"] is not None:
        sure = f"{headline['confidence']:.0%}".replace("%", " %")
        line += f" ({sure} interval {headline['low']:+.3f} to {headline['high']:+.3f})"
    return f"{line} over the best founder, {headline['founder']['name']}"
