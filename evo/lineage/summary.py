"""``summary.json``: what a run found, in one small file; and the table of it for people."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from evo.errors import EvoError
from evo.lineage.files import write_whole

SUMMARY_FILE = "summary.json"
_PACKAGES = ("evo-models", "torch", "transformers", "ray", "numpy", "cmaes", "pyarrow")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, whole or not at all."""
    write_json(run_dir / SUMMARY_FILE, summary)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` as JSON, whole or not at all."""
    write_whole(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a finished run, None for one that has not finished.

    Raises:
        EvoError: the file is damaged.
    """
    path = run_dir / SUMMARY_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EvoError(f"{path}: damaged ({error})") from error
    if not isinstance(data, dict):
        raise EvoError(f"{path}: damaged (no JSON object)")
    return data


def results_table(summary: Mapping[str, Any], title: str) -> Table:
    """Winner and baselines, best test score first."""
    table = Table(title=title)
    for column in ("model", "kind", "dev", "select", "test", "± s.e."):
        table.add_column(column, justify="left" if column in ("model", "kind") else "right")
    rows = [summary["winner"], *summary["baselines"]]
    if summary.get("ensemble"):
        rows.append(summary["ensemble"])
    for row in sorted(rows, key=lambda r: -_number(r["test"])):
        values = [_text(row[key]) for key in ("dev", "select", "test", "test_se")]
        style = "bold" if row is summary["winner"] else None
        table.add_row(row["name"], row["kind"], *values, style=style)
    return table


def _number(value: float | None) -> float:
    return float("-inf") if value is None else value


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
