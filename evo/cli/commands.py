"""What the commands do, between the command line's words and the library's functions."""

from pathlib import Path

import click

import evo.lineage
from evo.cli.progress import bar
from evo.errors import EvoError
from evo.export.checkpoint import export
from evo.export.lora import export_adapter
from evo.merging.as_yaml import save_yaml
from evo.merging.mergekit_evolve import import_evolve
from evo.run.recovery import read_config
from evo.run.setup import reopen_founders
from evo.zoo.adapters import train_adapters
from evo.zoo.build import build
from evo.zoo.tasks import parse_mix, write_task
from operators.recipe import Founder, walk


def export_individual(
    run_dir: Path, individual: str, out: Path, *, adapter: bool = False, rank: int = 0
) -> None:
    """Export from what the run folder holds: its config, its lineage, and the founders it names."""
    lineage = evo.lineage.open(run_dir)
    config = read_config(run_dir, check_files=False)
    found = lineage.find(individual)
    recipe = lineage.recipe(found)
    used = {part.name for part in walk(recipe) if isinstance(part, Founder)}
    founders = reopen_founders(config, run_dir, used)
    if adapter:
        remote = config.engine.trust_remote_code
        report = export_adapter(recipe, founders, out, rank=rank, trust_remote_code=remote)
        click.echo(f"{found[:12]} -> {out}: {report.describe()}")
        return
    if out.suffix in (".yaml", ".yml"):
        save_yaml(recipe, founders, out, dtype=config.engine.dtype)
    else:
        export(recipe, founders, out, dtype=config.engine.dtype)
    click.echo(f"{found[:12]} -> {out}")


def import_config(config: Path, out: Path | None, evaluations: int | None) -> None:
    """Translate a mergekit-evolve config; the notes go to stderr, so that the rest can be piped."""
    if out is not None and out.exists():
        raise EvoError(f"{out}: exists already; choose another --out")
    imported = import_evolve(config, evaluations=evaluations)
    if out is None:
        click.echo(imported.text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(imported.text, encoding="utf-8")
        click.echo(f"{config} -> {out}", err=True)
    click.echo("Not carried over, or not the same:", err=True)
    for note in imported.notes:
        click.echo(f"- {note}", err=True)


def build_zoo(folder: Path, seed: int) -> None:
    """Build the demo zoo behind a progress bar."""
    with bar("zoo") as advance:
        build(folder, seed=seed, progress=advance)
    click.echo(f"{folder}: ready")


def build_adapters(folder: Path, seed: int) -> None:
    """Train the zoo's adapters behind a progress bar, and say what they know."""
    with bar("adapters") as advance:
        figures = train_adapters(folder, seed=seed, progress=advance)
    for name, scores in figures.items():
        click.echo(f"{name}: " + ", ".join(f"{task} {score:.3f}" for task, score in scores.items()))


def write_zoo_task(folder: Path, mix: str, name: str, seed: int) -> None:
    """Write one task's splits and name the files."""
    if not (folder / "zoo.json").is_file():
        raise EvoError(f"{folder}: no zoo here; first run: evo zoo build {folder}")
    try:
        files = write_task(folder / "tasks", parse_mix(mix), name=name, seed=seed)
    except ValueError as error:
        raise EvoError(str(error)) from error
    for path in files.values():
        click.echo(path)
