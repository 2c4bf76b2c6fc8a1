"""The five tables by name, of whatever can read a table."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


class Tables(ABC):
    """What one run's lineage and many runs' have in common."""

    @abstractmethod
    def table(
        self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """A table by name."""

    @property
    def individuals(self) -> pa.Table:
        """Everyone who was ever tried: id, generation, operator, parents, recipe, seed."""
        return self.table("individuals")

    @property
    def evaluations(self) -> pa.Table:
        """Every evaluation: individual, task, split, score, standard error, time, host, status."""
        return self.table("evaluations")

    @property
    def items(self) -> pa.Table:
        """Per-example scores."""
        return self.table("items")

    @property
    def population(self) -> pa.Table:
        """Who was alive in which generation, with rank and fitness."""
        return self.table("population")

    @property
    def events(self) -> pa.Table:
        """What happened to the run itself: start, retries, failures, finish."""
        return self.table("events")
