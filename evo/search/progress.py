"""Progress: the reports of a search after each evaluation and each generation."""

from dataclasses import dataclass

from evo.algorithms.protocol import Scored


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished generation. All fitness is on dev.

    Attributes:
        number: 0 for the founders.
        best: the best individual of the run so far.
        mean: mean fitness of the population, without failed individuals.
        spread: standard deviation of that fitness.
        evaluations: of the run so far.
        failed: the number of these that failed.
        seconds: the run's clock at the last result that counts; the same in a replay.
    """

    number: int
    best: Scored
    mean: float
    spread: float
    evaluations: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a search after an evaluation. ``mean`` is of the current generation."""

    generation: int
    evaluations: int
    best: float
    mean: float
    failed: int
    seconds: float
