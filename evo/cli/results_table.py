"""The table of results: winner and baselines, best test score first."""

from rich.table import Table

from evo.run_dir.summary import RunSummary


def results_table(summary: RunSummary, title: str) -> Table:
    """Return the table of a run's results, with the winner in bold."""
    look = summary.looks_at_test
    caption = f"look {look} at test: the run was extended after it had finished"
    table = Table(title=title, caption=caption if look > 1 else None)
    for column in ("model", "kind", "dev", "select", "test", "± s.e."):
        table.add_column(column, justify="left" if column in ("model", "kind") else "right")
    for row in sorted(
        summary.rows, key=lambda r: float("-inf") if r.test is None else r.test, reverse=True
    ):
        values = [_text(value) for value in (row.dev, row.select, row.test, row.test_se)]
        table.add_row(row.name, row.kind, *values, style="bold" if row is summary.winner else None)
    return table


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
