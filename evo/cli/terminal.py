"""What several commands print with: consoles, progress bars, and the live line of a run."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from evo.config.schema import BudgetConfig
from evo.search.progress import Generation, Progress

_WIDE = 1000  # characters


def console() -> Console:
    """Standard output for tables and lines, which are not cut where it is a file or a pipe."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(soft_wrap=True, highlight=False, width=width)


class RunProgress:
    """One line that lives, and one line that stays for every finished generation."""

    def __init__(self, budget: BudgetConfig) -> None:
        self._budget = budget
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the live line away. Harmless the second time."""
        self._live.stop()

    def note(self, text: str) -> None:
        """Say what is going on while nothing can be counted."""
        self._live.update(Text(f"{text} ..."))

    def observe(self, progress: Progress) -> None:
        """Redraw the live line, after each evaluation."""
        self._live.update(Text(self._line(progress)))

    def generation(self, generation: Generation) -> None:
        """Leave a line for a finished generation."""
        at = Progress(
            generation.number,
            generation.evaluations,
            generation.best.fitness,
            generation.mean,
            generation.failed,
            generation.seconds,
        )
        self._console.print(self._line(at), soft_wrap=True)

    def _line(self, at: Progress) -> str:
        rate = at.evaluations / at.seconds if at.seconds > 0 else math.nan
        total = f"/{self._budget.evaluations}" if self._budget.evaluations else ""
        left = self._left(at, rate)
        return (
            f"generation {at.generation:3d}  best {at.best:.4f}  mean {at.mean:.4f}  "
            f"evaluations {at.evaluations}{total}  {rate:.1f}/s"
            + (f"  failed {at.failed}" if at.failed else "")
            + (f"  left {left}" if left else "")
        )

    def _left(self, at: Progress, rate: float) -> str:
        """Time left by the evaluations' and the seconds' budget, whichever ends first."""
        ends = []
        if self._budget.evaluations is not None and rate > 0:
            ends.append((self._budget.evaluations - at.evaluations) / rate)
        if self._budget.seconds is not None:
            ends.append(max(0.0, self._budget.seconds - at.seconds))
        if not ends:
            return ""
        minutes, seconds = divmod(round(min(ends)), 60)
        return f"{minutes}:{seconds:02d}"


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
