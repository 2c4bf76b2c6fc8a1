"""Commands for the demo and its zoo."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--dir",
    "folder",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Gets zoo/, run/, genome_plus/ and best/.",
)
def demo(folder: Path) -> None:
    """Train the demo zoo, evolve it on a local Ray, compare, and export the winner."""
    from evo.zoo.demo import run_demo

    run_demo(folder)


@click.group()
def zoo() -> None:
    """The demo zoo: a tiny base model, its fine-tuned experts, and tasks for them."""


@zoo.command("build")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_build(folder: Path, seed: int) -> None:
    """Train base and experts into DIR (about two minutes on two cores; once, then reused)."""
    from evo.cli.commands import build_zoo

    build_zoo(folder, seed)


@zoo.command("adapters")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_adapters(folder: Path, seed: int) -> None:
    """Train LoRA adapters of the zoo's base into DIR/adapters (half a minute on two cores)."""
    from evo.cli.commands import build_adapters

    build_adapters(folder, seed)


@zoo.command("task")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--mix", required=True, help="SKILL:ALPHABET pairs, e.g. swap:1,pmax:1.")
@click.option("--name", required=True, help="Of the task: DIR/tasks/NAME.SPLIT.jsonl.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_task(folder: Path, mix: str, name: str, seed: int) -> None:
    """Write a task for any mix of skill and alphabet."""
    from evo.cli.commands import write_zoo_task

    write_zoo_task(folder, mix, name, seed)
