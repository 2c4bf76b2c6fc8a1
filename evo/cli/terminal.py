"""What several commands print with: the console and a progress bar."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_WIDE = 1000  # characters


def console() -> Console:
    """Standard output for tables and lines, which are not cut where it is a file or a pipe."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(soft_wrap=True, highlight=False, width=width)


@contextmanager
def bar(label: str) -> Iterator[Callable[[str, float], None]]:
    """A progress bar; call what it gives with (label, fraction between 0 and 1)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console) as progress:
        task = progress.add_task(label, total=1.0)
        spoken = [perf_counter()]

        def advance(text: str, fraction: float) -> None:
            progress.update(task, description=text, completed=fraction)
            # Without a terminal there is no bar to redraw: a line now and then instead.
            if not console.is_terminal and perf_counter() - spoken[0] > 15:
                spoken[0] = perf_counter()
                console.print(f"{text}: {fraction:.0%}", highlight=False)

        yield advance
