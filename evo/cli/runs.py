"""Commands that start runs, go on with them and say where they stand."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), help="Default: runs/CONFIG's name.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key; repeats."
)
@click.option("--address", metavar="auto|HOST:PORT", help="Join the Ray cluster there.")
@click.option(
    "--resume", "go_on", is_flag=True, help="Go on if --run-dir holds a run of this CONFIG."
)
@click.option(
    "--reuse",
    multiple=True,
    metavar="DIR",
    help="Take what that run evaluated, not what the config's reuse names; repeats.",
)
def run(
    config: Path,
    run_dir: Path | None,
    overrides: tuple[str, ...],
    address: str | None,
    go_on: bool,
    reuse: tuple[str, ...],
) -> None:
    """Evolve as CONFIG (YAML) says, and print the table of winner and baselines."""
    if address is not None:  # first: a refusal should not wait for torch
        from evo.cli.commands_cluster import joined

        overrides += joined(address)
    from evo.cli.commands_run import run_config
    from evo.lineage.files import free_folder

    if go_on and run_dir is None:
        raise click.UsageError("--resume needs --run-dir")
    folder = run_dir or free_folder(Path("runs") / config.stem)
    if reuse:
        overrides += (f"reuse={json.dumps([str(Path(d).absolute()) for d in reuse])}",)
    run_config(config, folder, overrides, go_on=go_on)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of pool or trackers; repeats.",
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
        from evo.cli.commands_cluster import joined

        overrides += joined(address)
    from evo.cli.commands_run import resume_run, resume_settings

    pool, trackers = resume_settings(run_dir, overrides)
    resume_run(run_dir, pool, trackers, repair=repair, accept_drift=accept_drift)


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def status(run_dir: Path, as_json: bool) -> None:
    """Say where the run in RUN_DIR stands, also while it runs."""
    from evo.cli.commands_run import print_status

    print_status(run_dir, as_json=as_json)


@click.command()
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
    from evo.cli import commands_cluster

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


@click.command("pack-run", hidden=True)
@click.argument("run_dir", type=click.Path(path_type=Path))
def pack_run(run_dir: Path) -> None:
    """Print the folder RUN_DIR as text: how evo submit --fetch gets it from a cluster."""
    from evo.cli.commands_cluster import print_packed

    print_packed(run_dir)
