"""What the commands do that only read a run. Nothing here waits for torch."""

import json
import sys
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console

import evo.lineage
from evo.errors import EvoError
from evo.lineage import SCHEMAS, Lineage, Lineages
from evo.lineage.read.run_config import layers_of
from evo.lineage.storage.records import RACED
from evo.report.terminal.ancestry import family_tree, shares_table
from evo.report.terminal.recipe import picture

TREE_NODES = 40
_WIDE = 1000  # characters: what goes to a file or a pipe is not cut
EVERYTHING = SCHEMAS["individuals"].names


def print_lineage(
    runs: str,
    table: str,
    *,
    ancestors: str | None = None,
    descendants: str | None = None,
    tree: str | None = None,
    shares: str | None = None,
    compare: tuple[str, str] | None = None,
    split: str | None = None,
    form: str = "table",
    limit: int | None = None,
) -> None:
    """Print a table of the lineage, or the answer to one question.

    csv, json and parquet are for machines and hold everything: of a tree its edges, of shares and of a
    comparison their rows.
    """
    asked = {
        "--ancestors": ancestors,
        "--descendants": descendants,
        "--tree": tree,
        "--shares": shares,
        "--compare": compare,
    }
    chosen = [name for name, value in asked.items() if value is not None]
    if len(chosen) > 1:
        raise EvoError(f"choose {' or '.join(chosen)}, not both")
    if chosen and table != "individuals":
        raise EvoError(f"{chosen[0]} goes with the table individuals, not {table}")
    if split is not None and compare is None:
        raise EvoError("--split goes with --compare")
    lineage: Lineage | Lineages = evo.lineage.open(runs)
    if ancestors is not None:
        _print(lineage.ancestors(ancestors, EVERYTHING), form, limit)
    elif descendants is not None:
        _print(lineage.descendants(descendants, EVERYTHING), form, limit)
    elif tree is not None:
        one = _single(lineage, "--tree")
        if form == "table":
            _console().print(family_tree(one, tree, limit or TREE_NODES))
        else:
            _print(one.tree(tree), form, limit)
    elif shares is not None:
        found = _single(lineage, "--shares").founder_shares(shares)
        if form == "table":
            _console().print(shares_table(found))
        else:
            _print(found, form, limit)
    elif compare is not None:
        comparison = _single(lineage, "--compare").compare(*compare, split or "dev")
        if form == "table":
            click.echo(comparison.describe())
        else:
            _print(comparison.items, form, limit)
    else:
        _print(lineage.table(table), form, limit)


def _single(lineage: Lineage | Lineages, option: str) -> Lineage:
    if isinstance(lineage, Lineage):
        return lineage
    if len(lineage) == 1:
        return lineage[lineage.runs[0]]
    raise EvoError(
        f"{option} looks at one run, and these are {len(lineage)}: {', '.join(lineage.runs)}"
    )


def _console() -> Console:
    width = None if sys.stdout.isatty() else _WIDE
    return Console(soft_wrap=True, highlight=False, width=width)


def _print(data: pa.Table, form: str, limit: int | None) -> None:
    if limit is not None:
        data = data.slice(0, limit)
    match form:
        case "table":
            _print_table(data)
        case "csv":
            joined = [
                pa.array([" ".join(v) for v in c.to_pylist()]) if pa.types.is_list(c.type) else c
                for c in data.columns
            ]
            flat = pa.table(dict(zip(data.column_names, joined, strict=True)))
            pyarrow.csv.write_csv(flat, sys.stdout.buffer)
        case "json":
            for row in data.to_pylist():
                click.echo(json.dumps(row, default=str))
        case "parquet":
            sink = pa.BufferOutputStream()
            pq.write_table(data, sink)
            sys.stdout.buffer.write(sink.getvalue())
            sys.stdout.buffer.flush()


def _print_table(data: pa.Table) -> None:
    shown = [name for name in data.column_names if name not in ("recipe", "seed", "weights")]
    frame = data.select(shown).to_pandas()
    for name in ("id", "individual"):
        if name in frame:
            frame[name] = frame[name].str[:12]
    if "parents" in frame:
        frame["parents"] = [" ".join(p[:12] for p in parents) for parents in frame["parents"]]
    click.echo(frame.to_string(index=False, max_colwidth=60))


def show_individual(run_dir: Path, individual: str) -> None:
    """Draw an individual with its scores; needs the run's folder only, not the founders."""
    lineage = evo.lineage.open(run_dir)
    found = lineage.find(individual)
    mine = pc.field("id") == found
    (row,) = lineage.table("individuals", ["operator", "generation"], mine).to_pylist()
    console = _console()
    console.print(f"{found}  {row['operator']}, generation {row['generation']}")
    console.print(picture(lineage.recipe(found), layers_of(run_dir)))
    columns = ["task", "split", "score", "standard_error", "examples", "status"]
    scored = (pc.field("individual") == found) & pc.field("score").is_valid()
    for evaluation in lineage.table("evaluations", columns, scored).to_pylist():
        raced = evaluation["status"] == RACED
        console.print(
            f"{evaluation['task']} {evaluation['split']}: {evaluation['score']:.3f} "
            f"± {evaluation['standard_error']:.3f}"
            + (f", dropped after {evaluation['examples']} examples" if raced else "")
        )
