"""``evo status``: how far a run is, whether it is running, stopped or finished."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def status(run_dir: Path, as_json: bool) -> None:
    """Say how far the run in RUN_DIR is, also while it runs."""
    from evo.report.status import read_status

    found = read_status(run_dir)
    click.echo(json.dumps(found.as_json()) if as_json else found.describe())
