"""The command line: one module for each group of commands. A command parses, calls, prints.

What a command does without printing belongs in the package of its subject (`evo.run`, `evo.export`, ...).
Heavy imports stay inside the commands, so that ``evo --help`` is instant.
"""

import errno
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from evo.cli import demo, export, lineage, merge, report, run, status, submit, verify, zoo
from evo.errors import EvoError

EXIT_INTERNAL, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
# Errors of a disk or a limit are the user's to mend, also where they name no file.
_USER_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE)

COMMANDS = (
    run.run,
    run.resume,
    status.status,
    submit.submit,
    submit.pack_run,
    lineage.lineage,
    lineage.show,
    report.report,
    report.watch,
    verify.verify,
    export.export,
    merge.merge,
    merge.import_,
    demo.demo,
    zoo.zoo,
)


class _OutputClosedError(Exception):
    """The reader of standard output has closed it, as ``head`` does."""


class _Commands(click.Group):
    """A group that tells a broken pipe from a failure: click and rich exit with 1 for both."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as end:
            if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
                raise
            raise _OutputClosedError from end
        return result


@click.group(
    cls=_Commands,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="evo-models", prog_name="evo")
def cli() -> None:
    """Evolution for populations of models: from founders and a few examples to a better checkpoint."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 internal error, 2 an error that the user can mend."""
    # Functions named in a config ("package.module:name") may be in the current folder.
    sys.path.insert(0, str(Path.cwd()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" for a character that the terminal lacks
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USER)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except _OutputClosedError:
        # Python flushes standard output once more at exit; that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if is_user_error(error):
            click.echo(f"Error: {error}", err=True)
            sys.exit(EXIT_USER)
        traceback.print_exc()
        click.echo("Internal error; please report it.", err=True)
        sys.exit(EXIT_INTERNAL)


def is_user_error(error: Exception) -> bool:
    """Whether the user can mend it: an `EvoError`, or a file that can't be read or written."""
    if isinstance(error, OSError):
        return error.filename is not None or error.errno in _USER_ERRNOS
    return isinstance(error, EvoError)
