"""The command line: parses, calls, prints. Heavy imports stay inside the commands, so --help is instant."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

EXIT_OURS, EXIT_USERS = 1, 2


class _ReaderGoneError(Exception):
    """Who read our output went away, as `head` does."""


class _Commands(click.Group):
    """click and rich exit with 1 when a pipe breaks, which here is the code for our own faults."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as end:
            if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
                raise
            raise _ReaderGoneError from end
        return result


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="evo-models", prog_name="evo")
def cli() -> None:
    """Evolution for populations of models: from founders and a few examples to a better checkpoint."""


@cli.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), help="Default: runs/CONFIG's name.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key; repeats."
)
@click.option("--address", metavar="auto|HOST:PORT", help="Join the Ray cluster there.")
@click.option(
    "--resume", "go_on", is_flag=True, help="Go on if --run-dir holds a run of this CONFIG."
)
def run(
    config: Path,
    run_dir: Path | None,
    overrides: tuple[str, ...],
    address: str | None,
    go_on: bool,
) -> None:
    """Evolve as CONFIG (YAML) says, and print the table of winner and baselines."""
    if address is not None:  # first: a refusal should not wait for torch
        from evo.commands_cluster import joined

        overrides += joined(address)
    from evo.commands_run import run_config
    from evo.lineage.files import free_folder

    if go_on and run_dir is None:
        raise click.UsageError("--resume needs --run-dir")
    folder = run_dir or free_folder(Path("runs") / config.stem)
    run_config(config, folder, overrides, go_on=go_on)


@cli.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of pool; repeats."
)
@click.option("--address", metavar="auto|HOST:PORT", help="Join the Ray cluster there.")
@click.option("--repair", is_flag=True, help="Set damaged files aside and evaluate again.")
@click.option("--accept-drift", is_flag=True, help="Go on though code or versions have changed.")
def resume(
    run_dir: Path,
    overrides: tuple[str, ...],
    address: str | None,
    repair: bool,
    accept_drift: bool,
) -> None:
    """Go on with the run in RUN_DIR, whatever stopped it, as if it had never stopped."""
    if address is not None:
        from evo.commands_cluster import joined

        overrides += joined(address)
    from evo.commands_run import pool_settings, resume_run

    pool = pool_settings(run_dir, overrides)
    resume_run(run_dir, pool, repair=repair, accept_drift=accept_drift)


@cli.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def status(run_dir: Path, as_json: bool) -> None:
    """Say where the run in RUN_DIR stands, also while it runs."""
    from evo.commands_run import print_status

    print_status(run_dir, as_json=as_json)


@cli.command()
@click.argument(
    "config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--address", required=True, metavar="URL", help="http://HOST:8265, the dashboard.")
@click.option("--run-dir", metavar="DIR", help="On the cluster; default: ~/evo-runs/ID there.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key; repeats."
)
@click.option("--follow", is_flag=True, help="Print the job's output until it ends.")
@click.option("--attach", metavar="ID", help="Follow a job that was submitted before.")
@click.option("--stop", metavar="ID", help="End a job cleanly; its run can be resumed.")
@click.option("--fetch", type=click.Path(path_type=Path), help="Bring the run folder back here.")
@click.option("--insecure", is_flag=True, help="Use a cluster that everybody can use.")
def submit(
    config: Path | None,
    address: str,
    run_dir: str | None,
    overrides: tuple[str, ...],
    follow: bool,
    attach: str | None,
    stop: str | None,
    fetch: Path | None,
    insecure: bool,
) -> None:
    """Run CONFIG (YAML) as a job of a Ray cluster, which gets CONFIG's folder; print the job's id.

    With --attach or --stop, and no CONFIG: follow, fetch or end a job by its id.
    """
    from evo import commands_cluster

    if (config is not None) + (attach is not None) + (stop is not None) != 1:
        raise click.UsageError("give CONFIG, or --attach ID, or --stop ID")
    if config is None:
        if run_dir or overrides:
            raise click.UsageError("--run-dir and --set go with CONFIG")
        commands_cluster.attach(
            attach or stop or "", address, stops=bool(stop), insecure=insecure, fetch=fetch
        )
        return
    if fetch and not follow:
        raise click.UsageError("--fetch goes with --follow, or later with --attach ID")
    commands_cluster.submit_config(
        config,
        address,
        run_dir=run_dir,
        overrides=overrides,
        insecure=insecure,
        follows=follow,
        fetch=fetch,
    )


@cli.command("pack-run", hidden=True)
@click.argument("run_dir", type=click.Path(path_type=Path))
def pack_run(run_dir: Path) -> None:
    """Print the folder RUN_DIR as text: how evo submit --fetch gets it from a cluster."""
    from evo.commands_cluster import print_packed

    print_packed(run_dir)


@cli.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--table", default="individuals", show_default=True, help="Which table to print.")
@click.option("--ancestors", metavar="ID", help="Only ID (or a prefix, or best) and its ancestors.")
@click.option("--descendants", metavar="ID", help="Only ID and its descendants.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
def lineage(
    run_dir: Path,
    table: str,
    ancestors: str | None,
    descendants: str | None,
    form: str,
    limit: int | None,
) -> None:
    """Print the lineage of RUN_DIR: individuals, evaluations, items, population or events."""
    from evo.commands import print_lineage

    print_lineage(run_dir, table, ancestors, descendants, form, limit)


@cli.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("individual", default="best")
def show(run_dir: Path, individual: str) -> None:
    """Draw an individual of RUN_DIR (an id, a prefix of one, or best): its path, or its parts."""
    from evo.commands import show_individual

    show_individual(run_dir, individual)


@cli.command()
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
    from evo.commands import export_individual

    if rank and not adapter:
        raise click.UsageError("--rank is of an adapter: give --adapter too")
    if adapter and out.suffix in (".yaml", ".yml"):
        raise click.UsageError(
            "--adapter writes a folder, and a FILE.yaml is of a merge: choose one"
        )
    export_individual(run_dir, individual, out, adapter=adapter, rank=rank or 0)


@cli.command()
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


@cli.command("import")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write; default: print it.")
@click.option(
    "--evaluations", type=click.IntRange(min=1), help="What --max-fevals was; its default is 100."
)
def import_(config: Path, out: Path | None, evaluations: int | None) -> None:
    """Turn a mergekit-evolve CONFIG (YAML) into a run config, and say what can't be carried over."""
    from evo.commands import import_config

    import_config(config, out, evaluations)


@cli.command()
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
    from evo.demo import run_demo

    run_demo(folder)


@cli.group()
def zoo() -> None:
    """The demo zoo: a tiny base model, its fine-tuned experts, and tasks for them."""


@zoo.command("build")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_build(folder: Path, seed: int) -> None:
    """Train base and experts into DIR (about two minutes on two cores; once, then reused)."""
    from evo.commands import build_zoo

    build_zoo(folder, seed)


@zoo.command("adapters")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_adapters(folder: Path, seed: int) -> None:
    """Train LoRA adapters of the zoo's base into DIR/adapters (half a minute on two cores)."""
    from evo.commands import build_adapters

    build_adapters(folder, seed)


@zoo.command("task")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--mix", required=True, help="SKILL:ALPHABET pairs, e.g. swap:1,pmax:1.")
@click.option("--name", required=True, help="Of the task: DIR/tasks/NAME.SPLIT.jsonl.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def zoo_task(folder: Path, mix: str, name: str, seed: int) -> None:
    """Write a task for any mix of skill and alphabet."""
    from evo.commands import write_zoo_task

    write_zoo_task(folder, mix, name, seed)


def main() -> None:
    """Entry point: exit code 0 done, 2 the user's mistake (no traceback), 1 ours."""
    # Functions named in a config ("package.module:name") may stand in the current folder.
    sys.path.insert(0, str(Path.cwd()))
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USERS)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except _ReaderGoneError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush goes there
        sys.exit(0)
    except Exception as error:
        if _is_users(error):
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_USERS)
        traceback.print_exc()
        click.echo("This is a fault of evo-models, not yours. Please report it.", err=True)
        sys.exit(EXIT_OURS)


def _is_users(error: Exception) -> bool:
    from cluster.errors import CheckpointError, PoolError
    from evo.errors import UserError

    if isinstance(error, (UserError, CheckpointError, PoolError, OSError)):
        return True  # without waiting for torch
    from fitness.engine import EngineError
    from fitness.examples import TaskError
    from fitness.functions import FunctionNameError
    from operators.materialize import MissingFounderError
    from operators.weights import WeightsMismatchError

    users = (
        MissingFounderError,
        WeightsMismatchError,
        TaskError,
        FunctionNameError,
        EngineError,
    )
    return isinstance(error, users)
