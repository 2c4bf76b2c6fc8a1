"""Commands that show what happened in a run."""

import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("runs", metavar="RUN_DIR")
@click.option("--table", default="individuals", show_default=True, help="Which table to print.")
@click.option("--ancestors", metavar="ID", help="Only ID (or a prefix, or best) and its ancestors.")
@click.option("--descendants", metavar="ID", help="Only ID and its descendants.")
@click.option("--tree", metavar="ID", help="Draw the family tree of ID; --limit individuals of it.")
@click.option("--shares", metavar="ID", help="How much of each founder is in ID, by layer.")
@click.option("--compare", nargs=2, metavar="A B", help="Which examples A gets right and B wrong.")
@click.option("--split", default="dev", show_default=True, help="The examples of --compare.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
def lineage(runs: str, table: str, **options: Any) -> None:
    """Print the lineage of RUN_DIR: individuals, evaluations, items, population or events.

    RUN_DIR may be a pattern in quotes, "runs/*": then the tables are of all runs that fit it.
    """
    from evo.commands_look import print_lineage

    print_lineage(runs, table, **options)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individual", default="best")
def show(run_dir: Path, individual: str) -> None:
    """Draw an individual of RUN_DIR (an id, a prefix of one, or best): its path, or its parts."""
    from evo.commands_look import show_individual

    show_individual(run_dir, individual)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individuals", nargs=-1, metavar="[ID ...]")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many, drawn at random, where no ID is given.",
)
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option(
    "--split",
    type=click.Choice(["dev", "select", "test"]),
    default="dev",
    show_default=True,
    help="On which split they are evaluated again.",
)
@click.option("--all", "everybody", is_flag=True, help="All that were evaluated on the split.")
def verify(
    run_dir: Path,
    individuals: tuple[str, ...],
    sample: int,
    seed: int,
    split: str,
    everybody: bool,
) -> None:
    """Build individuals of RUN_DIR again, evaluate them, and compare with what was recorded.

    Weights, scores and every example's value must be the same, to the last bit; else the exit code is 1.
    Each ID is an individual's, a prefix of one, or best.
    """
    from evo.commands_verify import verify_run

    if individuals and everybody:
        raise click.UsageError("give IDs or --all, not both")
    if not verify_run(run_dir, individuals, None if everybody else sample, seed, split):
        sys.exit(1)
