"""The command line: parses, calls, prints. Heavy imports stay inside the commands, so --help is instant.

Each command stands in the module of its kind, and in the one list here.
"""

import errno
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from evo.cli import look, models, runs, zoo
from evo.errors import EvoError

EXIT_OURS, EXIT_USERS = 1, 2
# Of a disk or a limit, also where the error does not name a file.
_USERS_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE)


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


for _command in (
    runs.run,
    runs.resume,
    runs.status,
    runs.submit,
    runs.pack_run,
    look.lineage,
    look.show,
    look.report,
    look.watch,
    look.verify,
    models.export,
    models.merge,
    models.import_,
    zoo.demo,
    zoo.zoo,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point: exit code 0 done, 2 the user's mistake (no traceback), 1 ours."""
    # Functions named in a config ("package.module:name") may stand in the current folder.
    sys.path.insert(0, str(Path.cwd()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that can't show a sign gets a "?"
            stream.reconfigure(errors="replace")
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
        click.echo("Internal error; please report it.", err=True)
        sys.exit(EXIT_OURS)


def _is_users(error: Exception) -> bool:
    """Whether the user can mend it: one of our own errors, or a file that can't be read or written."""
    if isinstance(error, OSError):
        return error.filename is not None or error.errno in _USERS_ERRNOS
    return isinstance(error, EvoError)
