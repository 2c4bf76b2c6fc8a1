"""``evo demo``: zoo, two evolutions, a table, a report, and the winner as a checkpoint."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

import evo
from evo.cli.run import run_config
from evo.cli.zoo import build_zoo
from evo.errors import EvoError

if TYPE_CHECKING:
    from evo.run_dir.summary import RunSummary


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
    run_demo(folder)


def demo_config() -> Path:
    """``examples/demo.yaml``: of the source tree, or of the installed package."""
    package = Path(evo.__file__).parent
    places = (package.parent / "examples" / "demo.yaml", package / "examples" / "demo.yaml")
    found = next((p for p in places if p.is_file()), None)
    if found is None:
        raise EvoError(f"examples/demo.yaml is missing; looked in {places[0]} and {places[1]}")
    return found


def run_demo(folder: Path) -> None:
    """Write ``zoo``, ``run`` (recipe_search), ``genome_plus`` (as published) and ``best`` to ``folder``.

    A run of an earlier demo is replaced; anything else in ``folder`` is left alone.

    Raises:
        EvoError: ``folder/run`` (or another of these) exists and is not from a demo.
    """
    from rich.console import Console

    from evo.cli.results_table import results_table
    from evo.report.write import write_report
    from evo.reproduce.export import export_individual

    out = Console(stderr=True)
    zoo, run, plus, best = (folder / n for n in ("zoo", "run", "genome_plus", "best"))
    out.print(f"[bold]1/5[/] the zoo: a base model and ten experts, trained here ({zoo})")
    build_zoo(zoo)
    for old, mark in ((run, "config.json"), (plus, "config.json"), (best, "recipe.json")):
        if old.exists():
            if not (old / mark).is_file():
                raise EvoError(f"{old}: exists, but is not from a demo; move it away")
            shutil.rmtree(old)
    root = f"root={zoo.resolve()}"
    out.print(f"[bold]2/5[/] recipe search over the merge coefficients ({run})")
    summary = run_config(demo_config(), run, [root])
    out.print(f"[bold]3/5[/] GENOME+ as published, on the weights, for comparison ({plus})")
    published = ["algorithm=genome_plus", "baselines={}"]
    run_config(demo_config(), plus, [root, *published])
    out.print(f"[bold]4/5[/] the winner as an ordinary checkpoint ({best})")
    click.echo(export_individual(run, "best", best))
    path, line = write_report(run)
    out.print(f"[bold]5/5[/] a report of what happened, for the browser ({path})")
    Console().print(results_table(_with_genome_plus(summary, plus), "The demo in one table"))
    Console().print(line, soft_wrap=True, highlight=False)


def _with_genome_plus(summary: "RunSummary", plus: Path) -> "RunSummary":
    from evo.run_dir import RunDir

    other = RunDir(plus).read_summary()
    if other is None:
        raise EvoError(f"{plus}: the run has not finished")
    rows = [replace(other.winner, name="GENOME+ winner", kind="genome_plus")]
    if other.ensemble is not None:
        rows.append(replace(other.ensemble, name="GENOME+ ensemble"))
    winner = replace(summary.winner, name="recipe_search winner")
    return replace(summary, winner=winner, baselines=(*summary.baselines, *rows))
