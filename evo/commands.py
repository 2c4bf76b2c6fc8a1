"""What the commands do, between the command line's words and the library's functions."""

import json
import sys
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console

import evo.lineage
from evo.errors import UserError
from evo.export import export
from evo.export_adapter import export_adapter
from evo.importing import import_evolve
from evo.merging.as_yaml import save_yaml
from evo.past import CONFIG_FILE, read_config
from evo.progress import bar
from evo.setup import reopen_founders
from evo.show import picture
from evo.zoo.adapters import train_adapters
from evo.zoo.build import build
from evo.zoo.tasks import parse_mix, write_task
from operators.architectures import architecture_of
from operators.recipe import Founder, walk


def print_lineage(
    run_dir: Path,
    table: str,
    ancestors: str | None,
    descendants: str | None,
    form: str,
    limit: int | None,
) -> None:
    """Print a table of the lineage; csv, json and parquet are for machines and hold everything."""
    lineage = evo.lineage.open(run_dir)
    if ancestors and descendants:
        raise UserError("choose --ancestors or --descendants, not both")
    if (ancestors or descendants) and table != "individuals":
        raise UserError("--ancestors and --descendants go with the table individuals")
    if ancestors:
        data = lineage.ancestors(ancestors)
    elif descendants:
        data = lineage.descendants(descendants)
    else:
        data = lineage.table(table)
    if limit is not None:
        data = data.slice(0, limit)
    match form:
        case "table":
            _print_table(data)
        case "csv":
            joined = [
                pa.array([" ".join(v) for v in c.to_pylist()]) if pa.types.is_list(c.type) else c
                for c in data.columns
            ]
            flat = pa.table(dict(zip(data.column_names, joined, strict=True)))
            pyarrow.csv.write_csv(flat, sys.stdout.buffer)
        case "json":
            for row in data.to_pylist():
                click.echo(json.dumps(row, default=str))
        case "parquet":
            sink = pa.BufferOutputStream()
            pq.write_table(data, sink)
            sys.stdout.buffer.write(sink.getvalue())
            sys.stdout.buffer.flush()


def _print_table(data: pa.Table) -> None:
    shown = [name for name in data.column_names if name not in ("recipe", "seed")]
    frame = data.select(shown).to_pandas()
    for name in ("id", "individual"):
        if name in frame:
            frame[name] = frame[name].str[:12]
    if "parents" in frame:
        frame["parents"] = [" ".join(p[:12] for p in parents) for parents in frame["parents"]]
    click.echo(frame.to_string(index=False, max_colwidth=60))


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
        raise UserError(f"{out}: exists already; choose another --out")
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


def _layers_of(run_dir: Path) -> int | None:
    """Layers of the run's founders; None if their base has gone, which a picture can do without."""
    try:
        base = Path(json.loads((run_dir / CONFIG_FILE).read_text(encoding="utf-8"))["base"])
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        return int(config[architecture_of(config).depth])
    except (OSError, ValueError, KeyError):
        return None


def show_individual(run_dir: Path, individual: str) -> None:
    """Draw an individual with its scores; needs the run's folder only, not the founders."""
    lineage = evo.lineage.open(run_dir)
    found = lineage.find(individual)
    row = next(r for r in lineage.individuals.to_pylist() if r["id"] == found)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{found}  {row['operator']}, generation {row['generation']}")
    console.print(picture(lineage.recipe(found), _layers_of(run_dir)))
    for evaluation in lineage.evaluations.to_pylist():
        if evaluation["individual"] == found and evaluation["status"] == "ok":
            console.print(
                f"{evaluation['task']} {evaluation['split']}: {evaluation['score']:.3f} "
                f"± {evaluation['standard_error']:.3f}"
            )


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
        raise UserError(f"{folder}: no zoo here; first run: evo zoo build {folder}")
    try:
        files = write_task(folder / "tasks", parse_mix(mix), name=name, seed=seed)
    except ValueError as error:
        raise UserError(str(error)) from error
    for path in files.values():
        click.echo(path)
