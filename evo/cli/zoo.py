"""``evo zoo``: the demo zoo, a tiny base model with fine-tuned experts, and tasks for them."""

from pathlib import Path

import click


@click.group()
def zoo() -> None:
    """The demo zoo: a tiny base model, its fine-tuned experts, and tasks for them."""


@zoo.command("build")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_build(folder: Path, seed: int) -> None:
    """Train base and experts into DIR (about two minutes on two cores; once, then reused)."""
    build_zoo(folder, seed)


@zoo.command("adapters")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_adapters(folder: Path, seed: int) -> None:
    """Train LoRA adapters of the zoo's base into DIR/adapters (half a minute on two cores)."""
    from evo.cli.terminal import bar
    from evo.zoo.adapters import train_adapters

    with bar("adapters") as advance:
        scores = train_adapters(folder, seed=seed, progress=advance)
    for name, by_task in scores.items():
        click.echo(f"{name}: " + ", ".join(f"{task} {x:.3f}" for task, x in by_task.items()))


@zoo.command("task")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--mix", required=True, help="SKILL:ALPHABET pairs, e.g. swap:1,pmax:1.")
@click.option("--name", required=True, help="Of the task: DIR/tasks/NAME.SPLIT.jsonl.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_task(folder: Path, mix: str, name: str, seed: int) -> None:
    """Write a task for any mix of skill and alphabet."""
    from evo.errors import EvoError
    from evo.zoo.tasks import parse_mix, write_task

    if not (folder / "zoo.json").is_file():
        raise EvoError(f"{folder}: no zoo here; first run: evo zoo build {folder}")
    for path in write_task(folder / "tasks", parse_mix(mix), name=name, seed=seed).values():
        click.echo(path)


def build_zoo(folder: Path, seed: int = 0) -> None:
    """Build the demo zoo in ``folder`` behind a progress bar; one that is there is kept."""
    from evo.cli.terminal import bar
    from evo.zoo.build import build

    with bar("zoo") as advance:
        build(folder, seed=seed, progress=advance)
    click.echo(f"{folder}: ready")
