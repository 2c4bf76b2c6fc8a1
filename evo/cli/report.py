"""``evo report`` and ``evo watch``: a run as an HTML page, and live in the browser or the terminal."""

import contextlib
import webbrowser
from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The HTML file to write.  [default: RUN_DIR/report.html]",
)
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
def report(run_dir: Path, out: Path | None, opens: bool) -> None:
    """Write what happened in RUN_DIR, running or finished, as one HTML file that opens offline."""
    from evo.report.write import write_report

    path, line = write_report(run_dir, out)
    click.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB): {line}")
    if opens:
        click.launch(path.resolve().as_uri())


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", default=0, show_default="any free", type=click.IntRange(0, 65535))
@click.option("--open/--no-open", "opens", default=True, help="Open a browser there.")
@click.option("--terminal", is_flag=True, help="Draw in the terminal; piped: a line a generation.")
@click.option("--once", is_flag=True, help="With --terminal: draw once and end.")
def watch(run_dir: Path, port: int, opens: bool, terminal: bool, once: bool) -> None:
    """Follow the run in RUN_DIR: in the browser, on this machine only, or in the terminal."""
    if once and not terminal:
        raise click.UsageError("--once goes with --terminal")
    with contextlib.suppress(KeyboardInterrupt):
        if terminal:
            from evo.watch.terminal import follow

            follow(run_dir, once=once)
            return
        from evo.watch.server import make_server

        with make_server(run_dir, port) as server:
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            click.echo(f"{run_dir}: live at {address} (Ctrl-C ends it)")
            if opens:
                webbrowser.open(address)
            server.serve_forever()
