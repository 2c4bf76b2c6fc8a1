"""``evo export``: an individual as an ordinary checkpoint, an adapter, or a merge's YAML."""

from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individual", default="best")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write; FILE.yaml: only how to merge it, for evo merge and mergekit.",
)
@click.option("--adapter", is_flag=True, help="As a PEFT LoRA adapter of the base.")
@click.option(
    "--rank", type=click.IntRange(min=1), help="Of each matrix of the adapter; default: exact."
)
def export(run_dir: Path, individual: str, out: Path, adapter: bool, rank: int | None) -> None:
    """Write an individual of RUN_DIR (an id, a prefix of one, or best) as an ordinary checkpoint."""
    if rank and not adapter:
        raise click.UsageError("--rank is of an adapter: give --adapter too")
    if adapter and out.suffix in (".yaml", ".yml"):
        raise click.UsageError(
            "--adapter writes a folder, and a FILE.yaml is of a merge: choose one"
        )
    from evo.reproduce.export import export_individual

    click.echo(export_individual(run_dir, individual, out, adapter=adapter, rank=rank or 0))
