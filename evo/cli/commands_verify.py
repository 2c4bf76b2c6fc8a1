"""What `evo verify` prints."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evo.cli.progress import bar
from evo.reproduce.verify import Checked, Verification, verify


def verify_run(
    run_dir: Path, individuals: Sequence[str], sample: int | None, seed: int, split: str
) -> bool:
    """Verify behind a progress bar and print a table; whether all is as recorded."""
    with bar("verify") as advance:
        found = verify(run_dir, individuals, sample=sample, seed=seed, split=split, advance=advance)
    console = Console(highlight=False, soft_wrap=True)
    console.print(verification_table(found))
    for line in _verdict(found):
        console.print(Text(line))
    return found.same


def verification_table(found: Verification) -> Table:
    """A row for each individual."""
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


def _scores(entry: Checked) -> str:
    scores = entry.scores.values()
    return " ".join("failed" if score is None else f"{score:.4f}" for score in scores)


def _verdict(found: Verification) -> list[str]:
    wrong = [c for c in found.checked if c.differences]
    lines = [f"{c.id[:12]}: {difference}" for c in wrong for difference in c.differences]
    lines += [f"{c.id[:12]}: {c.note}" for c in found.checked if c.note]
    if found.without_digest:
        lines.append(
            f"{found.without_digest} of {len(found.checked)} have no digest of their weights on record: "
            "only their scores were compared"
        )
    if found.notes:
        lines.append("Made elsewhere, or by other code, so that the last digits may differ:")
        lines += [f"- {note}" for note in found.notes]
    if wrong:
        lines.append(f"{len(wrong)} of {len(found.checked)} are not as recorded.")
    else:
        lines.append(f"All {len(found.checked)} are as recorded, to the last bit.")
    return lines
