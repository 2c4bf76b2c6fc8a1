"""``evo verify``: build and evaluate individuals again, and compare them with what was recorded."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fitness.splits import DEV, SPLITS, Split

if TYPE_CHECKING:
    from rich.table import Table

    from evo.reproduce.verify import Checked, Verification


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
    type=click.Choice(SPLITS),
    default=DEV,
    show_default=True,
    help="On which split they are evaluated again.",
)
@click.option("--all", "everything", is_flag=True, help="All that were evaluated on the split.")
def verify(
    run_dir: Path,
    individuals: tuple[str, ...],
    sample: int,
    seed: int,
    split: Split,
    everything: bool,
) -> None:
    """Build individuals of RUN_DIR again, evaluate them, and compare with what was recorded.

    Weights, scores and every example's value must be the same, to the last bit; else the exit code is 1.
    Each ID is an individual's, a prefix of one, or best.
    """
    if individuals and everything:
        raise click.UsageError("give IDs or --all, not both")
    from rich.text import Text

    from evo.cli.terminal import bar, console
    from evo.reproduce import verify as reproduce

    drawn = None if everything else sample
    with bar("verify") as advance:
        found = reproduce.verify(
            run_dir, individuals, sample=drawn, seed=seed, split=split, advance=advance
        )
    console().print(_table(found))
    for line in _verdict(found):
        console().print(Text(line))
    if not found.same:
        sys.exit(1)


def _table(found: "Verification") -> "Table":
    """A row for each individual."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{found.run_dir}, {found.split}")
    for column in ("individual", "recipe", "score", "examples", "weights", ""):
        right = column in ("score", "examples")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "recipe")
    for entry in found.checked:
        verdict = "DIFFERS" if entry.differences else "not repeated" if entry.note else "same"
        table.add_row(
            entry.id[:12],
            Text(_short(entry.description)),
            _scores(entry),
            str(entry.examples or "–"),
            f"{entry.digest[:12]}" if entry.digest else "not recorded",
            verdict,
            style="bold red" if entry.differences else None,
        )
    return table


def _short(text: str, width: int = 44) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _scores(entry: "Checked") -> str:
    scores = entry.scores.values()
    return " ".join("failed" if score is None else f"{score:.4f}" for score in scores)


def _verdict(found: "Verification") -> list[str]:
    wrong = [c for c in found.checked if c.differences]
    lines = [f"{c.id[:12]}: {difference}" for c in wrong for difference in c.differences]
    lines += [f"{c.id[:12]}: {c.note}" for c in found.checked if c.note]
    if found.without_digest:
        lines.append(
            f"{found.without_digest} of {len(found.checked)} have no recorded digest of their weights: "
            "only their scores were compared"
        )
    if found.notes:
        lines.append("Another machine or other code than the run's; the last digits may differ:")
        lines += [f"- {note}" for note in found.notes]
    if wrong:
        lines.append(f"{len(wrong)} of {len(found.checked)} are not as recorded.")
    else:
        lines.append(f"All {len(found.checked)} are as recorded, to the last bit.")
    return lines
