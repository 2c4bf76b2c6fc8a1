"""``evo lineage`` and ``evo show``: tables of what happened in a run, and one individual drawn."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fitness.splits import DEV

if TYPE_CHECKING:
    import pyarrow as pa

    from evo.lineage import Lineage, Lineages

TREE_NODES = 40


@click.command()
@click.argument("runs", metavar="RUN_DIR")
@click.option("--table", default="individuals", show_default=True, help="Which table to print.")
@click.option("--ancestors", metavar="ID", help="Only ID (or a prefix, or best) and its ancestors.")
@click.option("--descendants", metavar="ID", help="Only ID and its descendants.")
@click.option("--tree", metavar="ID", help="Draw the family tree of ID; --limit individuals of it.")
@click.option("--shares", metavar="ID", help="How much of each founder is in ID, by layer.")
@click.option("--compare", nargs=2, metavar="A B", help="Which examples A gets right and B wrong.")
@click.option("--split", show_default=DEV, help="The examples of --compare.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(min=1), help="Print at most this many rows.")
def lineage(
    runs: str, table: str, split: str | None, form: str, limit: int | None, **asked: Any
) -> None:
    """Print the lineage of RUN_DIR: individuals, evaluations, items, population or events.

    RUN_DIR may be a pattern in quotes, "runs/*": then the tables are of all runs that match it.
    """
    chosen = [name for name, value in asked.items() if value is not None]
    question = chosen[0] if chosen else None
    if len(chosen) > 1:
        raise click.UsageError(f"choose {' or '.join(f'--{n}' for n in chosen)}, not both")
    if question and table != "individuals":
        raise click.UsageError(f"--{question} goes with the table individuals, not {table}")
    if split is not None and question != "compare":
        raise click.UsageError("--split goes with --compare")
    import evo.lineage
    from evo.cli.terminal import console

    read = evo.lineage.open(runs)
    everything = evo.lineage.SCHEMAS["individuals"].names
    match question:
        case "ancestors":
            data = read.ancestors(asked["ancestors"], everything)
        case "descendants":
            data = read.descendants(asked["descendants"], everything)
        case "tree":
            one = _single(read, question)
            if form == "table":
                from evo.report.terminal.ancestry import family_tree

                console().print(family_tree(one, asked["tree"], limit or TREE_NODES))
                return
            data = one.tree(asked["tree"])
        case "shares":
            data = _single(read, question).founder_shares(asked["shares"])
            if form == "table":
                from evo.report.terminal.ancestry import shares_table

                console().print(shares_table(data))
                return
        case "compare":
            first, second = asked["compare"]
            comparison = _single(read, question).compare(first, second, split or DEV)
            if form == "table":
                click.echo(comparison.describe())
                return
            data = comparison.items
        case _:
            data = read.table(table)
    _print(data if limit is None else data.slice(0, limit), form)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individual", default="best")
def show(run_dir: Path, individual: str) -> None:
    """Draw an individual of RUN_DIR (an id, a prefix of one, or best): its path, or its parts."""
    import pyarrow.compute as pc

    import evo.lineage
    from evo.cli.terminal import console
    from evo.lineage.read.run_config import layers_of
    from evo.lineage.storage.records import RACED
    from evo.report.terminal.recipe import picture

    read = evo.lineage.open(run_dir)
    found = read.find(individual)
    (row,) = read.table(
        "individuals", ["operator", "generation"], pc.field("id") == found
    ).to_pylist()
    out = console()
    out.print(f"{found}  {row['operator']}, generation {row['generation']}")
    out.print(picture(read.recipe(found), layers_of(run_dir)))
    columns = ["task", "split", "score", "standard_error", "examples", "status"]
    scored = (pc.field("individual") == found) & pc.field("score").is_valid()
    for evaluation in read.table("evaluations", columns, scored).to_pylist():
        raced = evaluation["status"] == RACED
        out.print(
            f"{evaluation['task']} {evaluation['split']}: {evaluation['score']:.3f} "
            f"± {evaluation['standard_error']:.3f}"
            + (f", dropped after {evaluation['examples']} examples" if raced else "")
        )


def _single(read: "Lineage | Lineages", question: str) -> "Lineage":
    from evo.lineage import Lineage

    if isinstance(read, Lineage):
        return read
    if len(read) == 1:
        return read[read.runs[0]]
    raise click.UsageError(
        f"--{question} looks at one run, and these are {len(read)}: {', '.join(read.runs)}"
    )


def _print(data: "pa.Table", form: str) -> None:
    """Print a table: for people, or whole for machines."""
    match form:
        case "table":
            _print_readable(data)
        case "csv":
            _print_csv(data)
        case "json":
            for row in data.to_pylist():
                click.echo(json.dumps(row, default=str))
        case "parquet":
            import pyarrow.parquet as pq

            pq.write_table(data, sys.stdout.buffer)


def _print_readable(data: "pa.Table") -> None:
    shown = [name for name in data.column_names if name not in ("recipe", "seed", "weights")]
    frame = data.select(shown).to_pandas()
    for name in ("id", "individual"):
        if name in frame:
            frame[name] = frame[name].str[:12]
    if "parents" in frame:
        frame["parents"] = [" ".join(p[:12] for p in parents) for parents in frame["parents"]]
    click.echo(frame.to_string(index=False, max_colwidth=60))


def _print_csv(data: "pa.Table") -> None:
    import pyarrow as pa
    import pyarrow.csv

    flat = [  # CSV has no lists
        pa.array([" ".join(v) for v in c.to_pylist()]) if pa.types.is_list(c.type) else c
        for c in data.columns
    ]
    named = dict(zip(data.column_names, flat, strict=True))
    pyarrow.csv.write_csv(pa.table(named), sys.stdout.buffer)
