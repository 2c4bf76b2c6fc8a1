"""What ``evo watch`` does: follow a run in the browser or in the terminal until it is told to stop."""

import contextlib
import webbrowser
from pathlib import Path

import click


def watch_in_browser(run_dir: Path, port: int, *, opens: bool) -> None:
    """Serve the live view until Ctrl-C."""
    from evo.watch.server import make_server

    with contextlib.suppress(KeyboardInterrupt), make_server(run_dir, port) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        click.echo(f"{run_dir}: live at {address} (Ctrl-C ends it)")
        if opens:
            webbrowser.open(address)
        server.serve_forever()


def watch_in_terminal(run_dir: Path, *, once: bool) -> None:
    """Draw how the run stands until it ends, or Ctrl-C."""
    from evo.watch.terminal import follow

    with contextlib.suppress(KeyboardInterrupt):
        follow(run_dir, once=once)
