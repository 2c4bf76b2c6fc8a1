"""Commands that show what happened in a run."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--table", default="individuals", show_default=True, help="Which table to print.")
@click.option("--ancestors", metavar="ID", help="Only ID (or a prefix, or best) and its ancestors.")
@click.option("--descendants", metavar="ID", help="Only ID and its descendants.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
def lineage(
    run_dir: Path,
    table: str,
    ancestors: str | None,
    descendants: str | None,
    form: str,
    limit: int | None,
) -> None:
    """Print the lineage of RUN_DIR: individuals, evaluations, items, population or events."""
    from evo.commands import print_lineage

    print_lineage(run_dir, table, ancestors, descendants, form, limit)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individual", default="best")
def show(run_dir: Path, individual: str) -> None:
    """Draw an individual of RUN_DIR (an id, a prefix of one, or best): its path, or its parts."""
    from evo.commands import show_individual

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


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The HTML file to write.  [default: RUN_DIR/report.html]",
)
@click.option("--open", "show_it", is_flag=True, help="Open it in the browser.")
def report(run_dir: Path, out: Path | None, show_it: bool) -> None:
    """Write what happened in RUN_DIR, going or finished, as one HTML file that opens offline."""
    from evo.report.write import write_report

    path, line = write_report(run_dir, out)
    click.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB): {line}")
    if show_it:
        click.launch(path.resolve().as_uri())
