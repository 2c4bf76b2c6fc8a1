"""The progress of a run in the terminal."""

import math
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from evo.config.schema import BudgetConfig
from evo.search.progress import Generation, Progress


class RunProgress:
    """Prints a line for each finished generation, below them a line that is redrawn after each evaluation."""

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
        """Remove the live line. A second call does nothing."""
        self._live.stop()

    def note(self, text: str) -> None:
        """Show what the run does while there is no progress to count."""
        self._live.update(Text(f"{text} ..."))

    def observe(self, progress: Progress) -> None:
        """Redraw the live line, after each evaluation."""
        self._live.update(Text(self._line(progress)))

    def generation(self, generation: Generation) -> None:
        """Print the line of a finished generation."""
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
