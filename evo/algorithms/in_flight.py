"""What recipes in flight were made of: the link from an evaluation back to the points behind it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from evo.algorithms.protocol import Scored

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard(Generic[T]):
    """What a recipe was made of, and what it gave; ``fitness`` is finite."""

    id: str
    made_of: T
    fitness: float


class InFlight(Generic[T]):
    """What the recipes that are not told yet were made of, in the order asked.

    One recipe may have been made several times: its evaluation is then heard for each.
    """

    def __init__(self) -> None:
        self._asked: list[tuple[str, T]] = []

    def __contains__(self, recipe_id: str) -> bool:
        return any(id_ == recipe_id for id_, _ in self._asked)

    def add(self, recipe_id: str, made_of: T) -> None:
        self._asked.append((recipe_id, made_of))

    def forget(self) -> None:
        """Nothing more is wanted of what was asked: its evaluations will not be heard."""
        self._asked.clear()

    def take(self, evaluations: Sequence[Scored]) -> list[Heard[T]]:
        """What is told of what is in flight, in the order asked; the rest stays.

        What failed, or whose ``fitness`` is not finite, counts as the worst of the ``evaluations``.
        """
        told = {s.candidate.id: s.fitness for s in evaluations}
        worst = min((f for f in told.values() if math.isfinite(f)), default=0.0)
        heard = [
            Heard(id_, made_of, told[id_] if math.isfinite(told[id_]) else worst)
            for id_, made_of in self._asked
            if id_ in told
        ]
        self._asked = [(id_, made_of) for id_, made_of in self._asked if id_ not in told]
        return heard
