"""Commands that write models and configs."""

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
    from evo.cli.commands import export_individual

    if rank and not adapter:
        raise click.UsageError("--rank is of an adapter: give --adapter too")
    if adapter and out.suffix in (".yaml", ".yml"):
        raise click.UsageError(
            "--adapter writes a folder, and a FILE.yaml is of a merge: choose one"
        )
    export_individual(run_dir, individual, out, adapter=adapter, rank=rank or 0)


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--seed", type=int, help="For methods that draw; default: random_seed in RECIPE, or 0."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--shard-size", default="5GB", show_default=True, metavar="SIZE", help="Of a file, at most."
)
def merge(recipe: Path, out: Path, seed: int | None, threads: int, shard_size: str) -> None:
    """Merge checkpoints as RECIPE says (mergekit's YAML), without loading them into memory."""
    from evo.merging.folder import merge_command

    merge_command(recipe, out, seed, threads, shard_size)


@click.command("import")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write; default: print it.")
@click.option(
    "--evaluations", type=click.IntRange(min=1), help="What --max-fevals was; its default is 100."
)
def import_(config: Path, out: Path | None, evaluations: int | None) -> None:
    """Turn a mergekit-evolve CONFIG (YAML) into a run config, and say what can't be carried over."""
    from evo.cli.commands import import_config

    import_config(config, out, evaluations)
