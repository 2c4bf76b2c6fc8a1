"""RunClock: the seconds that a run has searched."""

from time import perf_counter


class RunClock:
    """Counts the seconds of a run's search, over all its processes and without the pauses between them.

    Args:
        before_s: the seconds searched before the run was resumed.
    """

    def __init__(self, before_s: float = 0.0) -> None:
        self._before_s = before_s
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock, if it does not run."""
        self._started = perf_counter() if self._started is None else self._started

    def __call__(self) -> float:
        """Return the seconds so far."""
        return self._before_s + (0.0 if self._started is None else perf_counter() - self._started)
