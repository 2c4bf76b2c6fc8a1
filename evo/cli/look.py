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
@click.option("--split", show_default="dev", help="The examples of --compare.")
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
    from evo.cli.commands_look import print_lineage

    print_lineage(runs, table, **options)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individual", default="best")
def show(run_dir: Path, individual: str) -> None:
    """Draw an individual of RUN_DIR (an id, a prefix of one, or best): its path, or its parts."""
    from evo.cli.commands_look import show_individual

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
    from evo.cli.commands_verify import verify_run

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


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", default=0, show_default="any free", type=click.IntRange(0, 65535))
@click.option("--open/--no-open", "opens", default=True, help="Open a browser there.")
@click.option("--terminal", is_flag=True, help="Draw in the terminal; piped: a line a generation.")
@click.option("--once", is_flag=True, help="With --terminal: draw once and end.")
def watch(run_dir: Path, port: int, opens: bool, terminal: bool, once: bool) -> None:
    """Follow the run in RUN_DIR while it goes on: in the browser, on this machine only."""
    from evo.cli import commands_watch

    if terminal:
        commands_watch.watch_in_terminal(run_dir, once=once)
    elif once:
        raise click.UsageError("--once goes with --terminal")
    else:
        commands_watch.watch_in_browser(run_dir, port, opens=opens)
