"""``evo merge`` and ``evo import``: mergekit's files, merged or turned into a run config."""

import sys
from pathlib import Path

import click


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
    from evo.merging.folder import merge_file, parse_size

    limit = parse_size(shard_size)
    if sys.stderr.isatty():
        with click.progressbar(length=1, label="merging", file=sys.stderr) as bar:

            def advance(done: int, total: int) -> None:
                bar.length = total
                bar.update(done)

            merged = merge_file(recipe, out, limit, threads, seed, advance)
    else:
        merged = merge_file(recipe, out, limit, threads, seed)
    for note in merged.notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(
        f"{merged.path}: {merged.tensors} tensors, {merged.bytes / 1e6:.1f} MB in {merged.files} "
        f"file{'s' if merged.files > 1 else ''}"
    )


@click.command("import")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write; default: print it.")
@click.option(
    "--evaluations", type=click.IntRange(min=1), help="What --max-fevals was; its default is 100."
)
def import_(config: Path, out: Path | None, evaluations: int | None) -> None:
    """Turn a mergekit-evolve CONFIG (YAML) into a run config, and say what can't be carried over."""
    from evo.errors import EvoError
    from evo.merging.mergekit_evolve import import_evolve

    if out is not None and out.exists():
        raise EvoError(f"{out}: exists already; choose another --out")
    imported = import_evolve(config, evaluations=evaluations)
    if out is None:
        click.echo(imported.text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(imported.text, encoding="utf-8")
        click.echo(f"{config} -> {out}", err=True)
    # Notes go to standard error, so that the config can be piped.
    click.echo("Not carried over, or not the same:", err=True)
    for note in imported.notes:
        click.echo(f"- {note}", err=True)
