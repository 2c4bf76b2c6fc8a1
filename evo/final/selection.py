"""SelectionPolicy: which individuals are finalists, and which of them wins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evo.algorithms import Scored
from operators.variation.selection import ranking


@dataclass(frozen=True, slots=True)
class SelectionPolicy:
    """The best individuals on dev are the finalists; the best finalist on select wins.

    An individual that failed (its fitness is not finite) is neither a finalist nor a winner.

    Attributes:
        finalists: the number of finalists, at least 1.
    """

    finalists: int

    def shortlist(self, scored: Sequence[Scored]) -> list[Scored]:
        """Return the finalists, best on dev first; ties in the order of ``scored``."""
        return _best_first(scored, [s.fitness for s in scored])[: self.finalists]

    def order(self, shortlist: Sequence[Scored], select: Sequence[float]) -> list[Scored]:
        """Return the finalists that did not fail on select, best first; ties in the order of dev.

        Args:
            shortlist: the finalists, from :meth:`shortlist`.
            select: their fitness on select, shape (finalists,).
        """
        return _best_first(shortlist, select)


def _best_first(scored: Sequence[Scored], fitness: Sequence[float]) -> list[Scored]:
    return [scored[i] for i in ranking(fitness) if math.isfinite(fitness[i])]
